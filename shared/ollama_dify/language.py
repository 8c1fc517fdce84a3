"""The language of hints and commands: English in the code, Japanese and Chinese in `locale/` (gettext).

    _("… {port} …").format(port=port)      the text in the current language
    N_("…")                                 marks a text in a table; `_` translates it where it is shown

The language is the first that is set of: `language("ja")` for a `with` block, `set_language("ja")` for the
process, the variable OLLAMA_DIFY_LANG. Else English. An error's hint is translated when the error is created.
"""

from __future__ import annotations

import gettext
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Literal, get_args

__all__ = ["LANGUAGES", "N_", "Language", "_", "current_language", "language", "set_language"]

Language = Literal["en", "ja", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

LOCALE = Path(__file__).parent / "locale"

_default: Language | None = None
_chosen: ContextVar[Language | None] = ContextVar("ollama_dify_language", default=None)
_NAMES: dict[str, Language] = {"english": "en", "japanese": "ja", "chinese": "zh"}  # as Windows calls them


def set_language(name: str | None) -> None:
    """Choose the language of this process: "en", "ja" or "zh"; None: use OLLAMA_DIFY_LANG again."""
    global _default
    _default = None if name is None else _checked(name)


@contextmanager
def language(name: str) -> Iterator[None]:
    """Choose the language within a `with` block, for this thread or task only."""
    token = _chosen.set(_checked(name))
    try:
        yield
    finally:
        _chosen.reset(token)


def current_language() -> Language:
    """The current language."""
    return _chosen.get() or _default or _known(os.environ.get("OLLAMA_DIFY_LANG")) or "en"


def locale_language(environ: Mapping[str, str]) -> Language:
    """The language of a command: OLLAMA_DIFY_LANG, else the locale's."""
    for name in ("OLLAMA_DIFY_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if environ.get(name):
            return _known(environ[name]) or "en"
    import locale  # only commands need it

    return _known(locale.getlocale()[0]) or "en"


def _(message: str) -> str:
    """The English `message` in the current language."""
    name = current_language()
    return message if name == "en" else _catalogue(name).gettext(message)


def N_(message: str) -> str:
    """`message` unchanged: marks a text for the tool that collects texts to translate."""
    return message


@cache
def _catalogue(name: Language) -> gettext.NullTranslations:
    return gettext.translation("ollama_dify", LOCALE, [name])


def _known(name: str | None) -> Language | None:
    """The language that a locale's name means (ja_JP.UTF-8, zh-TW, Japanese_Japan); None for another."""
    first = re.split(r"[-_.]", name or "")[0].lower()
    return _NAMES.get(first) or next((known for known in LANGUAGES if known == first), None)


def _checked(name: str) -> Language:
    found = _known(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"There is no language {name!r}: choose one of {', '.join(LANGUAGES)}.")
    return found
