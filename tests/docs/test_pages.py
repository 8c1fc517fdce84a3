"""The guide and the pages about the frameworks: every block runs as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import llama_index.core
import pytest
from llama_index.core import Settings

from ollama_dify.testing import SimulatedOllama

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ("guide", "guide.ja", "guide.zh")
HELP = tuple(f"{page}{language}" for page in ("doctor", "errors") for language in ("", ".ja", ".zh"))
PAGES = ("langchain", "llamaindex", "dify", *GUIDES, *HELP)
BLOCKS = [
    pytest.param(page, code, id=f"{page}-{number}")
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text("utf-8"), re.DOTALL), 1
    )
]
# What each page has to show: a word that stands in one of its blocks.
TOPICS = {
    **dict.fromkeys(GUIDES, ("ChatSettings(", "EmbeddingSettings(", "vision_support=True")),
    "langchain": (
        "from_settings(",
        "configurable_fields(",
        "init_chat_model(",
        "bind_tools(",
        "tool_choice=",
        "create_agent(",
        "with_structured_output(",
        "repair=True",
        '"type": "image"',
        "think=",
        "allowed_objects=",
        "valid_namespaces=",
        "callbacks",
        "get_num_tokens(",
        "OllamaDifyRerank(",
        "astream(",
    ),
    "llamaindex": (
        "from_settings(",
        "Settings.llm =",
        "Settings.embed_model =",
        "tool_required=",
        "FunctionAgent(",
        "structured_predict(",
        "as_structured_llm(",
        '"repair": True',
        "ImageBlock(",
        "think=",
        "from_dict(",
        "callback_manager=",
        "tokenizer",
        "astream_complete(",
        "OllamaDifyRerank(",
    ),
}


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedOllama]:
    """Nothing names an address: the environment does, as for a user. LlamaIndex's globals come back."""
    for name in ("_llm", "_embed_model", "_tokenizer", "_callback_manager"):
        monkeypatch.setattr(Settings, name, getattr(Settings, name, None))
    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)
    monkeypatch.chdir(ROOT)
    with SimulatedOllama() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url)
        yield server


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
# LlamaIndex's workflows look at every attribute of an agent, pydantic's deprecated ones too, and its
# structured LLM calls one of them.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")
@pytest.mark.parametrize(("page", "code"), BLOCKS)
def test_block_runs(
    page: str, code: str, server: SimulatedOllama, capsys: pytest.CaptureFixture[str]
) -> None:
    # Classes made in a block are looked up by their module's name.
    exec(compile(code, f"docs/{page}.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()
    assert server.requests or page == "dify"  # settings alone send nothing


@pytest.mark.parametrize("page", TOPICS)
def test_a_page_shows_its_topics(page: str) -> None:
    shown = "\n".join(
        str(param.values[1])
        for param in BLOCKS
        if isinstance(param.id, str) and param.id.startswith(f"{page}-")
    )
    assert [topic for topic in TOPICS[page] if topic not in shown] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_linked(page: str) -> None:
    language = page.partition(".")[2]
    home = ROOT / "docs" / (f"index.{language}.md" if language else "index.md")
    assert f"({page}.md)" in home.read_text("utf-8")
