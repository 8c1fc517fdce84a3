"""The language in force, and catalogues that say everything in Japanese and Chinese."""

from __future__ import annotations

import gettext
import io
import re
import threading
from collections.abc import Mapping
from string import Formatter

import pytest

from ollama_dify import language, set_language
from ollama_dify.advice import model_missing_advice
from ollama_dify.language import current_language, locale_language

from .catalogues import LANGUAGES, extracted, folder, translated

TEXTS = [message.id for message in extracted() if message.id]


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_DIFY_LANG", raising=False)


def fields(text: str) -> set[str]:
    return {name for _text, name, _spec, _conversion in Formatter().parse(text) if name}


def fixed(text: str) -> set[str]:
    """What is typed or pasted, and so the same in every language."""
    return set(
        re.findall(r"`[^`]+`|https?://[^\s{}（）)]+|\b[A-Z]+_[A-Z_]+\b|--[a-z-]+|\b[a-z]+_[a-z_]+\b", text)
    )


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_catalogue_is_complete_and_compiled(name: str) -> None:
    catalog = translated(name)
    known = {message.id: message.string for message in catalog if message.id}
    assert len(TEXTS) > 150
    assert sorted(known) == sorted(TEXTS), "run python -m tests.catalogues"
    assert [text for text, found in known.items() if not found] == []
    assert [text for text in TEXTS if fields(text) != fields(known[text])] == []
    assert [text for text in TEXTS if fixed(text) - {"trust_env"} - fixed(known[text])] == []
    data = (folder(name) / "ollama_dify.mo").read_bytes()
    compiled = gettext.GNUTranslations(io.BytesIO(data))
    assert [text for text in TEXTS if compiled.gettext(text) != known[text]] == []


def advice_in_force() -> str:
    return {"Th": "en", "サー": "ja", "服务": "zh"}[model_missing_advice("m", [])[:2]]


def test_the_language_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advice_in_force() == current_language() == "en"
    monkeypatch.setenv("OLLAMA_DIFY_LANG", "zh_CN.UTF-8")
    assert advice_in_force() == "zh"
    try:
        set_language("ja")
        with language("en"):
            assert advice_in_force() == "en"
            with language("zh"):
                assert advice_in_force() == "zh"
            elsewhere: list[str] = []
            thread = threading.Thread(target=lambda: elsewhere.append(advice_in_force()))
            thread.start()
            thread.join()
        assert elsewhere == ["ja"]
        assert advice_in_force() == "ja"
    finally:
        set_language(None)
    assert advice_in_force() == "zh"


@pytest.mark.parametrize("name", ["jp", "", "fr", None])
def test_an_unknown_language_is_refused(name: str | None) -> None:
    with pytest.raises(ValueError, match="choose one of en, ja, zh"), language(name):  # type: ignore[arg-type]  # on purpose
        pass


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({"OLLAMA_DIFY_LANG": "ja", "LC_ALL": "zh_CN.UTF-8"}, "ja", id="own variable"),
        pytest.param({"LC_ALL": "zh_TW.UTF-8", "LANG": "ja_JP.UTF-8"}, "zh", id="LC_ALL"),
        pytest.param({"LANG": "ja_JP.UTF-8"}, "ja", id="LANG"),
        pytest.param({"LANG": "Japanese_Japan.932"}, "ja", id="Windows"),
        pytest.param({"LANG": "C.UTF-8"}, "en", id="C"),
        pytest.param({"LANG": "de_DE.UTF-8"}, "en", id="another language"),
    ],
)
def test_the_language_of_a_command(environ: Mapping[str, str], expected: str) -> None:
    assert locale_language(environ) == expected
