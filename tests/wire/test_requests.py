"""Settings and messages in, exactly these bytes out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ollama_dify import (
    CapabilityError,
    ChatSettings,
    ConfigurationError,
    ConnectionSettings,
    EmbeddingSettings,
    Image,
    Message,
    Prompt,
    Tool,
    ToolCall,
    UnsupportedContentError,
    assistant,
    system,
    user,
)
from ollama_dify.media.image import MediaFile
from ollama_dify.settings import LOAD_OPTIONS
from ollama_dify.wire.requests import (
    WireRequest,
    chat_request,
    check_call,
    embed_request,
    encode,
    generate_request,
    load_request,
)

URL = "http://h:11434"
PNG = (Path(__file__).parent.parent / "data" / "images" / "png_rgb.png").read_bytes()
TEXT = base64.b64encode(PNG).decode()
IMAGE = Image.from_bytes(PNG)
SHUT = {"truncate": False, "shift": False}
USUAL = {"options": {"num_ctx": 4096, "num_predict": 4096}, **SHUT}


def chat(**values: Any) -> ChatSettings:
    return ChatSettings(**{"model": "llava", "base_url": URL, **values})


def sent(request: WireRequest) -> dict[str, Any]:
    """The body as the server parses it."""
    return json.loads(written(encode(request.body or {})))  # type: ignore[no-any-return]


def written(body: bytes | list[bytes | MediaFile]) -> bytes:
    pieces = [body] if isinstance(body, bytes) else body
    return b"".join(
        piece if isinstance(piece, bytes) else b"".join(piece.base64_pieces()) for piece in pieces
    )


WHOLE_CHAT = {
    "num_gpu": 1,
    "num_thread": 2,
    "num_batch": 3,
    "main_gpu": 0,
    "use_mmap": False,
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.5,
    "repeat_last_n": -1,
    "presence_penalty": 0.0,
    "frequency_penalty": -1.0,
    "seed": 0,
    "stop": ["a", "b"],
    "num_keep": -1,
    "mirostat": 0,
    "mirostat_eta": 0.5,
    "mirostat_tau": 5.0,
    "tfs_z": 1.0,
}


@pytest.mark.parametrize(
    ("values", "body"),
    [
        pytest.param({}, USUAL, id="defaults"),
        pytest.param(
            {"context_size": 2048}, {"options": {"num_ctx": 2048, "num_predict": 2048}, **SHUT}, id="size"
        ),
        pytest.param({"context_size": None}, {"options": {}, **SHUT}, id="the server decides"),
        pytest.param(
            {"context_size": None, "max_tokens": 9}, {"options": {"num_predict": 9}, **SHUT}, id="bound only"
        ),
        pytest.param(
            {"max_tokens": 99}, {"options": {"num_ctx": 4096, "num_predict": 99}, **SHUT}, id="bound"
        ),
        pytest.param(
            {"max_tokens": 99, "num_predict": 7},
            {"options": {"num_ctx": 4096, "num_predict": 7}, **SHUT},
            id="less",
        ),
        *[
            pytest.param(
                {"max_tokens": 99, "num_predict": none},
                {"options": {"num_ctx": 4096, "num_predict": 99}, **SHUT},
                id=f"num_predict={none} is the bound",
            )
            for none in (0, -1, -2)
        ],
        pytest.param(
            WHOLE_CHAT,
            {"options": {**WHOLE_CHAT, "num_ctx": 4096, "num_predict": 4096}, **SHUT},
            id="all options",
        ),
        pytest.param(
            {"stop": "x"}, {**USUAL, "options": {**USUAL["options"], "stop": ["x"]}}, id="one stop word"
        ),  # type: ignore[dict-item]
        pytest.param(
            {"options": {"numa": True, "draft_num_predict": 4}},
            {**USUAL, "options": {**USUAL["options"], "numa": True, "draft_num_predict": 4}},  # type: ignore[dict-item]
            id="further options",
        ),
        pytest.param({"keep_alive": 300}, {**USUAL, "keep_alive": 300}, id="keep_alive seconds"),
        pytest.param({"keep_alive": -1}, {**USUAL, "keep_alive": -1}, id="keep_alive for ever"),
        pytest.param({"keep_alive": 0}, {**USUAL, "keep_alive": 0}, id="keep_alive none"),
        pytest.param({"keep_alive": "1h30m"}, {**USUAL, "keep_alive": "1h30m"}, id="keep_alive duration"),
        pytest.param({"think": False}, {**USUAL, "think": False}, id="think off"),
        pytest.param({"think": True}, {**USUAL, "think": True}, id="think on"),
        pytest.param({"think": "high"}, {**USUAL, "think": "high"}, id="think level"),
        pytest.param({"format": "json"}, {**USUAL, "format": "json"}, id="json"),
        pytest.param({"format": {"type": "object"}}, {**USUAL, "format": {"type": "object"}}, id="schema"),
        pytest.param(
            {"logprobs": False, "top_logprobs": 0},
            {**USUAL, "logprobs": False, "top_logprobs": 0},
            id="logprobs",
        ),
        pytest.param(
            {"context_overflow": "truncate"}, {**USUAL, "truncate": True, "shift": True}, id="the server cuts"
        ),
        pytest.param({"context_overflow": "trim"}, USUAL, id="we trim"),
        pytest.param(
            {"vision_support": True, "function_call_support": True, "mode": "completion", "max_retries": 9},
            USUAL,
            id="ours alone",
        ),
    ],
)
def test_settings_on_the_wire(values: dict[str, Any], body: dict[str, Any]) -> None:
    settings = chat(**values)
    messages = [{"role": "user", "content": "Hi"}]
    request = chat_request(settings, [user("Hi")])
    assert (request.method, request.path, request.model) == ("POST", "/api/chat", "llava")
    assert sent(request) == {"model": "llava", "messages": messages, "stream": False, **body}
    request = generate_request(settings, Prompt("Hi"), streamed=True)
    assert (request.method, request.path, request.streamed) == ("POST", "/api/generate", True)
    assert sent(request) == {"model": "llava", "prompt": "Hi", "stream": True, **body}


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        pytest.param(system("Be brief."), {"role": "system", "content": "Be brief."}, id="system"),
        pytest.param(user("a", "b"), {"role": "user", "content": "a\nb"}, id="two texts"),
        pytest.param(user(), {"role": "user", "content": ""}, id="nothing"),
        pytest.param(
            user("a\u0085b\u2028\x00"), {"role": "user", "content": "a\u0085b\u2028\x00"}, id="odd text"
        ),
        pytest.param(
            user("a", IMAGE, "b"),
            {"role": "user", "content": "a\nb", "images": [TEXT]},
            id="image between texts",
        ),
        pytest.param(
            user(IMAGE, IMAGE),
            {"role": "user", "content": "[img]\n[img]", "images": [TEXT, TEXT]},
            id="images",
        ),
        pytest.param(
            user("a", Image.from_data_url("data:image/png;base64," + TEXT)),
            {"role": "user", "content": "a", "images": [TEXT]},
            id="image from a data: URL",
        ),
        pytest.param(
            Message("assistant", user("a").content, thinking="hm"),
            {"role": "assistant", "content": "a", "thinking": "hm"},
            id="thinking",
        ),
        pytest.param(
            Message("assistant", thinking=""),
            {"role": "assistant", "content": ""},
            id="no thinking is not sent",
        ),
        pytest.param(
            assistant(tool_calls=[ToolCall("f", {"a": "[1"}, "c1"), ToolCall("g", MappingProxyType({}))]),
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": "[1"}}},
                    {"function": {"index": 1, "name": "g", "arguments": {}}},
                ],
            },
            id="calls",
        ),
        pytest.param(
            Message("tool", user("42", IMAGE).content, tool_name="f", tool_call_id="c1"),
            {"role": "tool", "content": "42", "images": [TEXT], "tool_name": "f", "tool_call_id": "c1"},
            id="result with an image",
        ),
    ],
)
def test_messages_on_the_wire(message: Message, wire: dict[str, Any]) -> None:
    assert sent(chat_request(chat(), [user("Hi"), message]))["messages"][1] == wire


def test_tools_on_the_wire() -> None:
    city = {"type": "object", "properties": {"name": {"type": "string"}}}
    schema = {"type": "object", "properties": {"c": {"$ref": "#/$defs/City"}}, "$defs": {"City": city}}
    request = chat_request(
        chat(), [user("Hi")], tools=[Tool("f", "Does it.", schema), Tool("g")], streamed=True
    )
    assert sent(request) == {
        "model": "llava",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "Does it.",
                    "parameters": {"type": "object", "properties": {"c": city}},
                },
            },
            {
                "type": "function",
                "function": {
                    "name": "g",
                    "description": "",
                    "parameters": {"type": "object", "properties": {}},
                },
            },
        ],
        **USUAL,
    }


@pytest.mark.parametrize(
    ("prompt", "body"),
    [
        pytest.param(Prompt("a", raw=True), {"prompt": "a", "raw": True}, id="raw"),
        pytest.param(
            Prompt("a", system="s", suffix="z", template="{{ .Prompt }}"),
            {"prompt": "a", "system": "s", "suffix": "z", "template": "{{ .Prompt }}"},
            id="texts",
        ),
        pytest.param(
            Prompt("a", system="", suffix=""), {"prompt": "a", "system": "", "suffix": ""}, id="empty texts"
        ),
        pytest.param(Prompt("", suffix="z"), {"prompt": "", "suffix": "z"}, id="only a suffix"),
        pytest.param(Prompt("", images=(IMAGE,)), {"prompt": "", "images": [TEXT]}, id="only an image"),
    ],
)
def test_prompts_on_the_wire(prompt: Prompt, body: dict[str, Any]) -> None:
    assert sent(generate_request(chat(), prompt)) == {"model": "llava", "stream": False, **body, **USUAL}


@pytest.mark.parametrize(
    ("values", "body"),
    [
        pytest.param({}, {"truncate": False, "options": {"num_ctx": 4096}}, id="defaults"),
        pytest.param(
            {"overflow": "truncate"}, {"truncate": True, "options": {"num_ctx": 4096}}, id="truncate"
        ),
        pytest.param({"overflow": "split"}, {"truncate": False, "options": {"num_ctx": 4096}}, id="split"),
        pytest.param(
            {
                "dimensions": 64,
                "keep_alive": "5m",
                "num_gpu": 0,
                "context_size": None,
                "options": {"seed": 1},
            },
            {"truncate": False, "dimensions": 64, "keep_alive": "5m", "options": {"num_gpu": 0, "seed": 1}},
            id="all",
        ),
    ],
)
def test_embed_on_the_wire(values: dict[str, Any], body: dict[str, Any]) -> None:
    request = embed_request(EmbeddingSettings(model="e", base_url=URL, **values), ("a", "b"))
    assert (request.method, request.path) == ("POST", "/api/embed")
    assert sent(request) == {"model": "e", "input": ["a", "b"], **body}


def test_load_on_the_wire() -> None:
    loading = load_request(chat(keep_alive="5m", num_gpu=1))
    assert loading.path == "/api/generate"
    assert sent(loading)["options"] == {"num_ctx": 4096, "num_gpu": 1}
    assert not sent(loading).get("prompt")


@pytest.mark.parametrize(
    ("messages", "tools"),
    [
        pytest.param([user("Hi")], [], id="text"),
        pytest.param([user("a", IMAGE), assistant("b"), user(IMAGE, "c", IMAGE)], [], id="images"),
        pytest.param([user("a", Image.from_base64(TEXT))], [Tool("f")], id="image from text"),
    ],
)
def test_a_body_with_images_is_what_json_dumps_writes(messages: list[Message], tools: list[Tool]) -> None:
    request = chat_request(chat(), messages, tools=tools)

    def plain(value: Any) -> Any:
        if isinstance(value, Image):
            return base64.b64encode(value.data).decode()
        raise TypeError

    dumped = json.dumps(request.body, default=plain, separators=(",", ":"), ensure_ascii=False).encode()
    body = encode(request.body or {})
    assert written(body) == dumped
    assert isinstance(body, list) is any(message.images for message in messages)


def nested(depth: int) -> Any:
    value: Any = 1
    for at in range(depth):
        value = {"a": value} if at % 2 else [value]
    return value


def called(**arguments: Any) -> list[Message]:
    return [user("Hi"), assistant(tool_calls=[ToolCall("f", arguments)])]


LONE = "a\ud800b"
AT = "messages[1].tool_calls[0].function.arguments."


@pytest.mark.parametrize(
    ("values", "messages", "named"),
    [
        pytest.param(
            {}, [user(LONE)], "messages[0].content holds a lone surrogate", id="surrogate in a message"
        ),
        pytest.param({}, called(x=LONE), AT + "x holds a lone surrogate", id="surrogate in arguments"),
        pytest.param({}, called(**{LONE: 1}), "lone surrogate", id="surrogate in a key"),
        pytest.param(
            {}, [user("a", IMAGE, LONE)], "messages[0].content holds", id="surrogate beside an image"
        ),
        pytest.param({"stop": [LONE]}, [user("a")], "options.stop[0] holds", id="surrogate in a stop word"),
        pytest.param({}, called(x={1, 2}), AT + "x is of type set", id="set"),
        pytest.param({}, called(x=[1, b"y"]), AT + "x[1] is of type bytes", id="bytes"),
        pytest.param({}, called(x=user("a")), AT + "x is of type Message", id="dataclass"),
        pytest.param({}, called(x={1: 2}), "key 1 at " + AT + "x", id="key that is no text"),
        pytest.param({}, called(x=2**64), AT + "x has more than 64 bits", id="number too long"),
        pytest.param(
            {}, called(x=-(2**63) - 1), AT + "x has more than 64 bits", id="number too long, negative"
        ),
        pytest.param({}, called(x=float("nan")), AT + "x is nan", id="NaN"),
        pytest.param({}, called(x=[float("inf")]), AT + "x[0] is inf", id="infinity"),
        pytest.param({"options": {"x": float("nan")}}, [user("a")], "options.x is nan", id="NaN option"),
        pytest.param(
            {"format": {"const": float("inf")}}, [user("a")], "format.const is inf", id="infinite schema"
        ),
        pytest.param({}, called(x=nested(300)), "nested over 250 levels", id="300 deep"),
        pytest.param({}, called(x=nested(3_000)), "nested over 250 levels", id="3,000 deep"),
        pytest.param({}, called(x=nested(200_000)), "nested over 250 levels", id="200,000 deep"),
    ],
)
def test_what_cannot_be_sent_is_named_by_its_place(
    values: dict[str, Any], messages: list[Message], named: str
) -> None:
    request = chat_request(chat(**values), messages)
    with pytest.raises(UnsupportedContentError) as caught:
        encode(request.body or {})
    assert named in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_value_that_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnsupportedContentError, match="nested over 250 levels"):
        encode(chat_request(chat(), called(x=loop)).body or {})


def test_null_is_no_infinity() -> None:
    request = chat_request(chat(), [user("null and void"), *called(x=None, y=[None, 1.5])])
    assert sent(request)["messages"][2]["tool_calls"][0]["function"]["arguments"] == {
        "x": None,
        "y": [None, 1.5],
    }


def test_a_deep_value_that_can_be_sent() -> None:
    request = chat_request(chat(), called(x=nested(200)))
    assert sent(request)["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"x": nested(200)}


@pytest.mark.parametrize(
    ("values", "messages", "tools", "kind", "said"),
    [
        pytest.param({}, [], [], UnsupportedContentError, "no messages", id="nothing"),
        pytest.param(
            {"vision_support": False},
            [user(IMAGE)],
            [],
            CapabilityError,
            "vision_support=False",
            id="image",
        ),
        pytest.param(
            {"function_call_support": False},
            [user("a")],
            [Tool("f")],
            CapabilityError,
            "function_call_support=False",
            id="tool",
        ),
        pytest.param({}, [user(*[IMAGE] * 17)], [], UnsupportedContentError, "at most 16", id="17 images"),
        pytest.param(
            {},
            [user(*[IMAGE] * 9), user(*[IMAGE] * 8)],
            [],
            UnsupportedContentError,
            "at most 16",
            id="17 images in two messages",
        ),
        pytest.param(
            {},
            [user("a")],
            [Tool("f", parameters={"$ref": "#/nowhere"})],
            UnsupportedContentError,
            "#/nowhere",
            id="dangling reference",
        ),
    ],
)
def test_refused_before_anything_is_sent(
    values: dict[str, Any], messages: list[Message], tools: list[Tool], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as caught:
        chat_request(chat(**values), messages, tools=tools)
    assert said in str(caught.value)


@pytest.mark.parametrize("prompt", [Prompt(""), Prompt("", system="s"), Prompt("", raw=True)])
def test_an_empty_prompt(prompt: Prompt) -> None:
    with pytest.raises(UnsupportedContentError, match="prompt is empty"):
        generate_request(chat(), prompt)


def test_a_prompt_with_a_image_for_a_blind_model() -> None:
    with pytest.raises(CapabilityError, match="vision_support=False"):
        generate_request(chat(vision_support=False), Prompt("a", images=(IMAGE,)))


# What a call may change, and what it may not.


@pytest.mark.parametrize(
    ("values", "call", "options"),
    [
        pytest.param({}, {}, {}, id="nothing"),
        pytest.param({"temperature": 1.0}, {"temperature": 0.0}, {"temperature": 0.0}, id="override"),
        pytest.param({"temperature": 1.0}, {"temperature": None}, {}, id="None takes it away"),
        pytest.param({"max_tokens": 99}, {"num_predict": 7}, {"num_predict": 7}, id="fewer"),
        pytest.param(
            {"max_tokens": 99}, {"max_tokens": 7}, {"num_predict": 7}, id="fewer by the bound's name"
        ),
        pytest.param({"max_tokens": 99}, {"max_tokens": 99}, {"num_predict": 99}, id="just the bound"),
        pytest.param(
            {"max_tokens": 99, "num_predict": 7},
            {"num_predict": 50},
            {"num_predict": 50},
            id="more than the default",
        ),
        pytest.param(
            {"max_tokens": 99, "num_predict": 7},
            {"num_predict": -1},
            {"num_predict": 99},
            id="back to the bound",
        ),
        pytest.param(
            {"max_tokens": 99, "num_predict": 7},
            {"max_tokens": None},
            {"num_predict": 99},
            id="None is the bound",
        ),
        pytest.param({"options": {"a": 1}}, {"options": {"b": 2}}, {"a": 1, "b": 2}, id="options are added"),
        pytest.param({"options": {"a": 1}}, {"options": None}, {"a": 1}, id="no further options"),
        pytest.param({"stop": ["a"]}, {"stop": "b"}, {"stop": ["b"]}, id="stop word"),
    ],
)
def test_a_call_may_change(values: dict[str, Any], call: dict[str, Any], options: dict[str, Any]) -> None:
    settings = chat(**values)
    before = settings.model_dump()
    bound = {"num_ctx": 4096, "num_predict": settings.token_bound}
    body = chat_request(check_call(settings, call), [user("a")]).body or {}
    assert body["options"] == {**bound, **options}
    assert settings.model_dump() == before


@pytest.mark.parametrize(
    "name",
    [
        "context_size",
        "num_ctx",
        *LOAD_OPTIONS,
        *sorted(set(ConnectionSettings.model_fields) - {"timeout", "max_retries"}),
        "mode",
    ],
)
def test_a_call_may_not_change(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot change per call"):
        check_call(chat(), {name: 1})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        pytest.param(
            {"num_predict": 5000},
            "num_predict=5000 asks for more than the upper bound max_tokens=4096",
            id="more than the bound",
        ),
        pytest.param(
            {"max_tokens": 5000},
            "num_predict=5000 asks for more than the upper bound max_tokens=4096",
            id="more than the bound, by its name",
        ),
        pytest.param({"num_predict": 1, "max_tokens": 5000}, "give one of them", id="both"),
        pytest.param({"temprature": 1}, "did you mean 'temperature'?", id="misspelt"),
        pytest.param({"context_window": 1}, "here it is called context_size", id="foreign"),
        pytest.param({"temperature": float("nan")}, "temperature", id="NaN"),
        pytest.param({"options": {"temperature": 1}}, "has a field of its own", id="option with a field"),
        pytest.param({"options": {"num_ctx": 1}}, "set context_size=", id="num_ctx through the back door"),
        pytest.param(
            {"options": {"num_gpu": 1}}, "has a field of its own", id="num_gpu through the back door"
        ),
    ],
)
def test_a_bad_call(call: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_call(chat(), call)
    assert said in str(caught.value)


def test_a_call_keeps_what_belongs_to_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ChatSettings(model="m", base_url="http://u:p@h:1", timeout=7, max_retries=5)
    monkeypatch.setenv("OLLAMA_HOST", "elsewhere")
    called = check_call(settings, {"temperature": 0, "model": "other"})
    assert (called.model, called.address.url, called.timeouts.total, called.max_retries) == (
        "other",
        "http://h:1",
        7,
        5,
    )
