"""What importing and one streamed token cost, counted, not timed: a slow machine changes nothing."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, get_type_hints

import httpx
import orjson
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ThinkingBlock,
)
from pydantic import BaseModel, Field, model_validator

import langchain_ollama_dify
import llamaindex_ollama_dify
import ollama_dify
from langchain_ollama_dify import ChatOllamaDify, answers
from llamaindex_ollama_dify import OllamaDify
from llamaindex_ollama_dify.answers import GrowingAnswer
from ollama_dify import ChatChunk, ChatSettings, OllamaClient, user
from ollama_dify.adapter import quick_constructor

ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / part) for part in ("shared", "packages"))

# Importing these takes longer than all of ours, and a program that never needs them must not pay.
HEAVY = {"h11", "tokenizers", "PIL", "rich", "yaml", "tenacity", "numpy", "pytest"}
FRAMEWORKS = {"langchain", "langchain_core", "langgraph", "langsmith", "llama_index", "workflows"}
ADAPTERS = {"langchain_ollama_dify", "llamaindex_ollama_dify"}

# Of ours: what a plain chat never needs comes when it is used.
ON_DEMAND = {
    *("media.headers", "media.conversion", "tokens", "client.count", "client.embed", "client.prefixes"),
    *("client.rerank", "wire.vectors", "testing", "cli", "web"),
}
# What advises comes with an error, but the transport may bring it along.
ADVICE = {"advice", "container", "doctor"}

# What is imported before: a program has its framework's class already. Then ours, what must not come, and
# the number of our modules today and three more; of the framework's own, a sixth one tells of a part that
# is not needed by all.
IMPORTS: dict[str, tuple[str, str, set[str], int]] = {
    "core": ("", "import ollama_dify", {*HEAVY, *FRAMEWORKS, *ADAPTERS, "httpx"}, 40),
    "testing": ("", "import ollama_dify.testing", {*FRAMEWORKS, *ADAPTERS, "pytest"}, 79),
    "langchain": (
        "from langchain_core.language_models import BaseChatModel",
        "import langchain_ollama_dify",
        {"h11", "tokenizers", "yaml", "tenacity", "llama_index", "llamaindex_ollama_dify", "langchain"},
        52,
    ),
    "llamaindex": (
        "from llama_index.core.llms.function_calling import FunctionCallingLLM",
        "import llamaindex_ollama_dify",
        {"h11", "httpx", "rich", "tokenizers", "langchain_core", "langchain_ollama_dify"},
        55,
    ),
}

_ADDED = """
import json, sys
{base}
before = set(sys.modules)
{statement}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def added_modules(base: str, statement: str) -> list[str]:
    script = _ADDED.format(base=base, statement=statement)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=120)
    found: list[str] = json.loads(done.stdout)
    return found


def ours_of(added: list[str]) -> list[str]:
    return [module for module in added if "ollama_dify" in module]


def on_demand(added: list[str], names: set[str]) -> list[str]:
    """Those of our modules that should not be there: the named ones and what is in them."""
    return [it for it in added if any(f"{it}.".startswith(f"ollama_dify.{name}.") for name in names)]


@pytest.mark.parametrize("name", IMPORTS)
def test_an_import_stays_small(name: str) -> None:
    base, statement, unwanted, budget = IMPORTS[name]
    added = added_modules(base, statement)
    assert {module.partition(".")[0] for module in added} & unwanted == set()
    assert 10 < len(ours_of(added)) <= budget, ours_of(added)
    if name != "testing":
        assert on_demand(added, ON_DEMAND | ADVICE) == []
    theirs = [module for module in added if module.startswith(("langchain_core", "llama_index"))]
    assert len(theirs) <= 5, theirs
    assert "langchain_core.tools" not in added


def test_what_comes_on_demand_has_the_names_it_has_here() -> None:
    core = ROOT / "shared" / "ollama_dify"
    for name in ON_DEMAND | ADVICE:
        path = core.joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), name


# What is imported, and what is called.
FIRST_CHATS = {
    "core": (
        "from ollama_dify import ChatSettings, OllamaClient, user",
        "OllamaClient(ChatSettings(model='m', http_client=client)).chat([user('Hello')])",
    ),
    "langchain": (
        "from langchain_ollama_dify import ChatOllamaDify",
        "ChatOllamaDify(model='m', http_client=client).invoke('Hello')",
    ),
    "llamaindex": (
        "from llamaindex_ollama_dify import OllamaDify",
        "OllamaDify(model='m', http_client=client).complete('Hello')",
    ),
}
_FIRST_CHAT = """
import httpx
{words}
message = {{"role": "assistant", "content": "Hi"}}
answer = {{"model": "m", "message": message, "done": True, "done_reason": "stop"}}
client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=answer)))
{chat}
"""


@pytest.mark.parametrize("name", FIRST_CHATS)
def test_a_first_chat_needs_nothing_of_it_either(name: str) -> None:
    """Else the cost of importing would only have moved."""
    words, chat = FIRST_CHATS[name]
    added = added_modules(IMPORTS[name][0], _FIRST_CHAT.format(words=words, chat=chat))
    assert "ollama_dify.transport.transports" in added
    assert on_demand(added, ON_DEMAND) == []


@pytest.mark.parametrize(
    ("statement", "module"),
    [
        ("from ollama_dify import TokenCounter", "ollama_dify.tokens.counter"),
        ("from ollama_dify import TokenCount", "ollama_dify.tokens.tokenizer"),
        ("from langchain_ollama_dify import OllamaDifyLLM", "langchain_ollama_dify.llms"),
    ],
)
def test_what_comes_on_demand_is_there(statement: str, module: str) -> None:
    assert module in added_modules("", statement)


PACKAGES = (ollama_dify, langchain_ollama_dify, llamaindex_ollama_dify)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_names_on_demand_are_names_like_others(package: ModuleType) -> None:
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is getattr(package, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def public_functions(package: ModuleType) -> Iterator[Any]:
    """Public functions, classes, their public methods and properties, as far as they are ours."""
    for name in package.__all__:
        found = getattr(package, name)
        yield found
        for part in dir(found) if inspect.isclass(found) else ():
            held = inspect.getattr_static(found, part)
            function = getattr(held, "__func__", getattr(held, "fget", held))
            if (
                not part.startswith("_")
                and inspect.isfunction(function)
                and "ollama_dify" in function.__module__
            ):
                yield function


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_type_hints_resolve_though_modules_come_late(package: ModuleType) -> None:
    for function in public_functions(package):
        if inspect.isclass(function) or inspect.isfunction(function):
            assert get_type_hints(function) is not None, function


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """An answer of `tokens` pieces, each as one read."""

    def __init__(self, tokens: int) -> None:
        line = {"model": "m", "created_at": "2026-01-02T03:04:05Z", "done": False}
        word = orjson.dumps({**line, "message": {"role": "assistant", "content": " sky"}}) + b"\n"
        end = {"role": "assistant", "content": ""}
        last = orjson.dumps({**line, "message": end, "done": True, "done_reason": "stop"}) + b"\n"
        self._pieces = [word] * tokens + [last]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def answering(tokens: int) -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: httpx.Response(200, stream=Pieces(tokens)))


class Calls:
    """Counts calls of our functions, and what these call themselves."""

    def __init__(self) -> None:
        self.count = 0

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" or (event == "call" and frame.f_back is not None):
            caller = frame if event == "c_call" else frame.f_back
            own = frame.f_code.co_filename.startswith(OURS)
            self.count += own or caller.f_code.co_filename.startswith(OURS)

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def client_stream(client: httpx.Client) -> None:
    for _chunk in OllamaClient(ChatSettings(model="m", http_client=client)).chat_stream([user("Hello")]):
        pass


def langchain_stream(client: httpx.Client) -> None:
    for _chunk in ChatOllamaDify(model="m", http_client=client).stream([HumanMessage("Hello")]):
        pass


def llamaindex_stream(client: httpx.Client) -> None:
    for _chunk in OllamaDify(model="m", http_client=client).stream_chat([ChatMessage("Hello")]):
        pass


# Calls per token, some 15 % above what is needed today. A rise is no accident: say why, or find it.
TOKEN_BUDGETS: dict[str, tuple[Callable[[httpx.Client], None], int]] = {
    "client": (client_stream, 33),
    "langchain": (langchain_stream, 54),
    "llamaindex": (llamaindex_stream, 56),
}


def calls_of(stream: Callable[[httpx.Client], None], tokens: int) -> int:
    with httpx.Client(transport=answering(tokens)) as client, Calls() as calls:
        stream(client)
    return calls.count


@pytest.mark.skipif(sys.getprofile() is not None, reason="another profiler is counting")
@pytest.mark.parametrize("name", TOKEN_BUDGETS)
def test_a_token_stays_cheap(name: str) -> None:
    stream, budget = TOKEN_BUDGETS[name]
    calls_of(stream, 10)
    few, many = calls_of(stream, 100), calls_of(stream, 300)
    per_token = (many - few) / 200
    assert 5 < per_token <= budget
    # No growth with the answer's length either.
    assert calls_of(stream, 500) - many == pytest.approx(many - few, rel=0.02)


def calls_of_framing(chunks: int) -> int:
    """Of reading a body whose every token is a chunk, in reads of 64 KB."""
    from ollama_dify.transport.http1 import Http1

    http = Http1(httpx.Request("POST", "http://server", content=b"{}"))
    assert http.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    token = b"x" * 120 + b"\n"
    wire = (b"%x\r\n%b\r\n" % (len(token), token)) * chunks
    with Calls() as calls:
        got = sum(len(http.body.feed(wire[at : at + 65536])) for at in range(0, len(wire), 65536))
    assert got == len(token) * chunks
    return calls.count


@pytest.mark.skipif(sys.getprofile() is not None, reason="another profiler is counting")
def test_the_framing_of_a_token_stays_cheap() -> None:
    few, many = calls_of_framing(2_000), calls_of_framing(6_000)
    assert 1 < (many - few) / 4_000 <= 8


def validated_langchain(text: str) -> ChatGenerationChunk:
    message = AIMessageChunk(content=text, response_metadata={"model_provider": "ollama"})
    return ChatGenerationChunk(message=message)


def validated_llamaindex(text: str, thinking: str = "") -> ChatResponse:
    blocks: list[Any] = [ThinkingBlock(content=thinking)] if thinking else []
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=[*blocks, TextBlock(text=text)])
    return ChatResponse(message=message, delta=text)


QUICK: dict[str, tuple[Callable[[], BaseModel], Callable[[], BaseModel]]] = {
    "langchain": (
        lambda: answers.StreamedAnswer().chunk(ChatChunk("Grüße")),
        lambda: validated_langchain("Grüße"),
    ),
    "langchain, no text": (
        lambda: answers.StreamedAnswer().chunk(ChatChunk("")),
        lambda: validated_langchain(""),
    ),
    "llamaindex": (lambda: GrowingAnswer().chat(ChatChunk("Grüße")), lambda: validated_llamaindex("Grüße")),
    "llamaindex, completion": (
        lambda: GrowingAnswer().completion(ChatChunk("Grüße")),
        lambda: CompletionResponse(text="Grüße", delta="Grüße"),
    ),
}


def parts(model: BaseModel) -> Iterator[BaseModel]:
    yield model
    for value in model.__dict__.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, BaseModel):
                yield from parts(item)


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_chunk_is_what_validation_makes(name: str) -> None:
    quick, validated = (make() for make in QUICK[name])
    assert quick == validated
    assert quick.model_dump() == validated.model_dump()
    for ours, theirs in zip(parts(quick), parts(validated), strict=True):
        assert type(ours) is type(theirs)
        assert ours.model_fields_set == theirs.model_fields_set
        assert {name: type(value) for name, value in ours.__dict__.items()} == {
            name: type(value) for name, value in theirs.__dict__.items()
        }
        assert ours.model_copy(deep=True) == theirs


@pytest.mark.parametrize("name", QUICK)
def test_quick_chunks_share_nothing(name: str) -> None:
    one, other = QUICK[name][0](), QUICK[name][0]()
    for ours, theirs in zip(parts(one), parts(other), strict=True):
        for field, value in ours.__dict__.items():
            if isinstance(value, (list, dict, set)):
                assert value is not theirs.__dict__[field], field
        assert ours.model_fields_set is not theirs.model_fields_set


def test_the_quick_way_is_the_one_in_use() -> None:
    assert answers.text_chunk.__name__ == answers.text_generation.__name__ == "quick"


class Derived(BaseModel):
    text: str
    length: int = 0

    @model_validator(mode="after")
    def _measure(self) -> Derived:
        self.__dict__["length"] = len(self.text)
        return self


class Shared(BaseModel):
    text: str
    nested: dict[str, list[int]] = Field(default_factory=lambda: {"a": []})


class Stamped(BaseModel):
    text: str
    number: list[int] = Field(default_factory=lambda: [len(_made)])

    def model_post_init(self, context: Any) -> None:
        _made.append(self.text)


_made: list[str] = []


@pytest.mark.parametrize("kind", [Derived, Shared, Stamped])
def test_what_cannot_be_made_quickly_is_validated(kind: type[BaseModel]) -> None:
    assert quick_constructor(kind, {"text": "a"}, {"text": "bb"}) is kind
