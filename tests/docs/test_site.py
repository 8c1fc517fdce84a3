"""The built site in Chromium: pages, search, languages, the form, a telephone's width; nothing is fetched."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.browser import Browser, needs_chromium, started_browser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def site(built: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built))) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from started_browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def browser(started: Browser, site: str) -> Iterator[Browser]:
    """Afterwards nothing is in the console, and every request of the last page went to the site."""
    yield started
    assert started.console() == []
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert {url for url in started.run(script) if not url.startswith((site, "data:", "blob:"))} == set()


@needs_chromium
def test_navigation(browser: Browser, site: str) -> None:
    browser.open(site + "langchain/")
    browser.click(".md-nav__link[href*=networking]")
    browser.wait(lambda: "networking" in browser.run("return location.href"), "the next page")


@needs_chromium
@pytest.mark.parametrize(
    ("start", "words", "found"),
    [
        ("", "connection refused", "/errors/"),
        ("", "max retries exceeded with url", "/guide/"),
        ("api/ollama_dify/", "ContextOverflowError", "/errors/"),
        ("ja/", "接続拒否", "/ja/guide/"),
        ("ja/", "コンテキスト長", "/ja/guide/"),
        ("ja/", "環境変数を設定する方法", "/ja/guide/"),
        ("zh/", "连接被拒绝", "/zh/errors/"),
        ("zh/", "上下文长度", "/zh/guide/"),
    ],
)
def test_a_search_finds(browser: Browser, site: str, start: str, words: str, found: str) -> None:
    browser.open(site + start)
    browser.type(".md-search__input", words)
    first = "return document.querySelector('.md-search-result__link')?.pathname"
    browser.wait(lambda: browser.run(first) == found, f"{found} first")


@needs_chromium
@pytest.mark.parametrize(
    ("page", "language", "leads_to", "title"),
    [
        ("guide/", "ja", "ja/guide/", "ガイド"),
        ("ja/errors/", "zh", "zh/errors/", "错误一览"),
        ("zh/doctor/", "en", "doctor/", "What the doctor says"),
        ("zh/", "ja", "ja/", "ollama-dify"),
        pytest.param("langchain/", "ja", "ja/", "ollama-dify", id="a page without a translation"),
    ],
)
def test_the_language_is_switched(
    browser: Browser, site: str, page: str, language: str, leads_to: str, title: str
) -> None:
    browser.open(site + page)
    browser.run("document.querySelector('.md-header .md-select .md-header__button').focus()")
    browser.wait(lambda: browser.text(f".md-select__link[hreflang={language}]"), "the languages")
    browser.click(f".md-select__link[hreflang={language}]")
    browser.wait(lambda: browser.run("return location.href") == site + leads_to, leads_to)
    assert browser.run("return document.documentElement.lang") == language
    assert title in browser.text("h1")
    words = {"en": "Search", "ja": "検索", "zh": "搜索"}
    assert browser.run("return document.querySelector('.md-search__input').placeholder") == words[language]
    assert (browser.text(".md-nav--primary a[href*=guide]") == "Guide") == (language == "en")


@needs_chromium
def test_the_form_writes_code(browser: Browser, site: str) -> None:
    browser.open(site + "ja/guide/")
    browser.click(".md-nav__link[href*=form]")
    browser.wait_for("#form", "モデル名称")
    assert 'model="llava"' in browser.text("#code")


@needs_chromium
def test_a_telephone_shows_all(browser: Browser, site: str, built: Path) -> None:
    for page in sorted(built.rglob("index.html")):
        path = page.parent.relative_to(built).as_posix().removeprefix(".")
        browser.open(f"{site}{path}{'/' if path else ''}", width=390, height=844)
        browser.wait(lambda: browser.text("h1"), "the page")
        assert browser.is_readable(), path


def test_nothing_is_fetched_and_nothing_is_left_out(built: Path) -> None:
    """What the browser would load lies in the site; every public name is in the reference."""
    for page in built.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source|object)[^>]*(?:src|data)="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]*rel="(?:stylesheet|icon|preconnect)"[^>]*href="([^"]+)"', text)
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], page
    for name in ("ollama_dify", "langchain_ollama_dify", "llamaindex_ollama_dify"):
        text = (built / "api" / name.removesuffix("_ollama_dify") / "index.html").read_text("utf-8")
        public = importlib.import_module(name).__all__
        # The function `language` lies in the module of the same name.
        assert [one for one in public if not re.search(rf'id="{name}\.{one}(\.language)?"', text)] == []
