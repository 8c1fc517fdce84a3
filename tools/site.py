"""A hook of MkDocs: three languages, links to files of the repository, and the form's page.

A page `guide.ja.md` beside `guide.md` is its translation: it becomes `ja/guide/`, the switch leads from one
to the other, and pages that are not translated stand in the navigation under "English".
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.nav import Link, Navigation, Section

from ollama_dify.web import FILES, read_file

ROOT = Path(__file__).parents[1]
SOURCE = "https://github.com/ollama-dify/ollama-dify/blob/main/"
LANGUAGES = {"en": "English", "ja": "日本語", "zh": "中文"}
FORM = {"en": "The form", "ja": "フォーム", "zh": "表单"}
# In a search, guides come before long tables and the reference, and English before its translations.
LATE = re.compile(r"api/|commands|comparison|performance|scale|design")
BREAK = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u3000-\u9fff\uff00-\uffef])")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
OUTSIDE = re.compile(r"(?<=\]\()\.\./([^)#\s]+)")
log = logging.getLogger("mkdocs.hooks.site")


def language_of(uri: str) -> str:
    middle = Path(uri).stem.rpartition(".")[2]
    return middle if middle in LANGUAGES else "en"


def in_language(uri: str, language: str) -> str:
    """The source of the same page in another language."""
    plain = uri.removesuffix(".md").removesuffix(f".{language_of(uri)}")
    return f"{plain}.md" if language == "en" else f"{plain}.{language}.md"


def on_files(files: Any, **_: Any) -> Any:
    for file in files.documentation_pages():
        language = language_of(file.src_uri)
        if language != "en":
            name = Path(in_language(file.src_uri, "en")).stem
            folder = "" if name == "index" else f"{name}/"
            file.dest_uri = f"{language}/{folder}index.html"
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead `../file` to the repository; a file that is not there is a warning, so an error in strict mode.

    A line break between Japanese or Chinese characters goes: a browser shows it as a space.
    """

    source = page.file.src_uri
    page.meta["search"] = {"boost": 0.3 if LATE.match(source) else 1 if language_of(source) == "en" else 0.9}

    def replace(match: re.Match[str]) -> str:
        if not (ROOT / match[1]).exists():
            log.warning("Doc file '%s' links to '%s', which is not there.", source, match[0])
        return SOURCE + match[1]

    parts = FENCED.split(markdown)
    parts[::2] = [OUTSIDE.sub(replace, BREAK.sub("", part)) for part in parts[::2]]
    return "".join(parts)


def on_page_context(context: Any, page: Any, config: Any, nav: Navigation) -> Any:
    """The theme's words, the switch and the navigation in the language of the page."""
    language = language_of(page.file.src_uri)
    config.theme["language"] = language
    by_source = {one.file.src_uri: one for one in nav.pages}
    config.extra["alternate"] = []
    for name, title in LANGUAGES.items():
        home = by_source[in_language("index.md", name)]
        other = by_source.get(in_language(page.file.src_uri, name), home)
        config.extra["alternate"].append({"name": title, "link": other.url or "./", "lang": name})
    items = next(one for one in nav.items if one.title == LANGUAGES[language]).children
    items = [*items, Link(FORM[language], f"form/#lang={language}")]
    if language != "en":
        rest = [
            one
            for source, one in by_source.items()
            if language_of(source) == "en" and in_language(source, language) not in by_source
        ]
        items = [*items, Section(LANGUAGES["en"], rest)]
    context["nav"] = Navigation(items, nav.pages)
    context["nav"].homepage = by_source[in_language("index.md", language)]
    return context


def on_post_page(output: str, **_: Any) -> str:
    """The theme asks for a sitemap at each of these addresses; the switch does without."""
    return re.sub(r'\s*<link rel="alternate"[^>]*>', "", output)


def on_post_build(config: Any) -> None:
    """Put the form's page into the site, where it writes code only."""
    folder = Path(config["site_dir"]) / "form"
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_bytes(read_file(name))
