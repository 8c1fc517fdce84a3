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
    **dict.fromkeys(("num_gpu", "main_gpu", "top_k", "seed", "mirostat"), 0),
    **dict.fromkeys(("num_thread", "num_batch", "repeat_last_n", "num_keep"), 2),
    **dict.fromkeys(("temperature", "min_p", "presence_penalty", "frequency_penalty"), 0.0),
    **dict.fromkeys(("top_p", "typical_p", "repeat_penalty", "mirostat_eta", "mirostat_tau", "tfs_z"), 0.5),
    "use_mmap": False,
    "stop": ["a", "b"],
}


def options(**values: Any) -> dict[str, Any]:
    return {"options": values, **SHUT}


def more_options(**values: Any) -> dict[str, Any]:
    return options(num_ctx=4096, num_predict=4096, **values)


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, USUAL),
    "size": ({"context_size": 2048}, options(num_ctx=2048, num_predict=2048)),
    "the server decides": ({"context_size": None}, options()),
    "bound only": ({"context_size": None, "max_tokens": 9}, options(num_predict=9)),
    "bound": ({"max_tokens": 99}, options(num_ctx=4096, num_predict=99)),
    "less": ({"max_tokens": 99, "num_predict": 7}, options(num_ctx=4096, num_predict=7)),
    **{
        f"num_predict={none} is the bound": (
            {"max_tokens": 99, "num_predict": none},
            options(num_ctx=4096, num_predict=99),
        )
        for none in (0, -1, -2)
    },
    "all options": (WHOLE_CHAT, more_options(**WHOLE_CHAT)),
    "one stop word": ({"stop": "x"}, more_options(stop=["x"])),
    "further options": ({"options": {"numa": True, "a": 4}}, more_options(numa=True, a=4)),
    "the server cuts": ({"context_overflow": "truncate"}, {**USUAL, "truncate": True, "shift": True}),
    "we trim": ({"context_overflow": "trim"}, USUAL),
    "ours alone": (
        {"vision_support": True, "function_call_support": True, "mode": "completion", "max_retries": 9},
        USUAL,
    ),
    **{
        f"{name}={value}": ({name: value}, {**USUAL, name: value})
        for name, values in {
            "keep_alive": (300, -1, 0, "1h30m"),
            "think": (False, True, "high"),
            "format": ("json", {"type": "object"}),
            "logprobs": (False,),
            "top_logprobs": (0,),
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize(("values", "body"), SETTINGS.values(), ids=SETTINGS)
def test_settings_on_the_wire(values: dict[str, Any], body: dict[str, Any]) -> None:
    settings = chat(**values)
    messages = [{"role": "user", "content": "Hi"}]
    request = chat_request(settings, [user("Hi")])
    assert (request.method, request.path, request.model) == ("POST", "/api/chat", "llava")
    assert sent(request) == {"model": "llava", "messages": messages, "stream": False, **body}
    request = generate_request(settings, Prompt("Hi"), streamed=True)
    assert (request.method, request.path, request.streamed) == ("POST", "/api/generate", True)
    assert sent(request) == {"model": "llava", "prompt": "Hi", "stream": True, **body}


MESSAGES: dict[str, tuple[Message, dict[str, Any]]] = {
    "system": (system("Be brief."), {"role": "system", "content": "Be brief."}),
    "two texts": (user("a", "b"), {"role": "user", "content": "a\nb"}),
    "nothing": (user(), {"role": "user", "content": ""}),
    "odd text": (user("a\u0085b\u2028\x00"), {"role": "user", "content": "a\u0085b\u2028\x00"}),
    "image between texts": (user("a", IMAGE, "b"), {"role": "user", "content": "a\nb", "images": [TEXT]}),
    "images": (user(IMAGE, IMAGE), {"role": "user", "content": "[img]\n[img]", "images": [TEXT, TEXT]}),
    "image from a data: URL": (
        user("a", Image.from_data_url("data:image/png;base64," + TEXT)),
        {"role": "user", "content": "a", "images": [TEXT]},
    ),
    "thinking": (
        Message("assistant", user("a").content, thinking="hm"),
        {"role": "assistant", "content": "a", "thinking": "hm"},
    ),
    "no thinking is not sent": (Message("assistant", thinking=""), {"role": "assistant", "content": ""}),
    "calls": (
        assistant(tool_calls=[ToolCall("f", {"a": "[1"}, "c1"), ToolCall("g", MappingProxyType({}))]),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": "[1"}}},
                {"function": {"index": 1, "name": "g", "arguments": {}}},
            ],
        },
    ),
    "result with an image": (
        Message("tool", user("42", IMAGE).content, tool_name="f", tool_call_id="c1"),
        {"role": "tool", "content": "42", "images": [TEXT], "tool_name": "f", "tool_call_id": "c1"},
    ),
}


@pytest.mark.parametrize(("message", "wire"), MESSAGES.values(), ids=MESSAGES)
def test_messages_on_the_wire(message: Message, wire: dict[str, Any]) -> None:
    assert sent(chat_request(chat(), [user("Hi"), message]))["messages"][1] == wire


def test_tools_on_the_wire() -> None:
    city = {"type": "object", "properties": {"name": {"type": "string"}}}
    schema = {"type": "object", "properties": {"c": {"$ref": "#/$defs/City"}}, "$defs": {"City": city}}
    request = chat_request(
        chat(), [user("Hi")], tools=[Tool("f", "Does it.", schema), Tool("g")], streamed=True
    )
    inlined = {"type": "object", "properties": {"c": city}}
    functions = [
        {"name": "f", "description": "Does it.", "parameters": inlined},
        {"name": "g", "description": "", "parameters": {"type": "object", "properties": {}}},
    ]
    body = sent(request)
    assert body["tools"] == [{"type": "function", "function": function} for function in functions]
    assert body["stream"] is True


TEXTS = {"system": "s", "suffix": "z", "template": "{{ .Prompt }}"}
PROMPTS: dict[str, tuple[Prompt, dict[str, Any]]] = {
    "raw": (Prompt("a", raw=True), {"prompt": "a", "raw": True}),
    "texts": (Prompt("a", **TEXTS), {"prompt": "a", **TEXTS}),
    "empty texts": (Prompt("a", system="", suffix=""), {"prompt": "a", "system": "", "suffix": ""}),
    "only a suffix": (Prompt("", suffix="z"), {"prompt": "", "suffix": "z"}),
    "only an image": (Prompt("", images=(IMAGE,)), {"prompt": "", "images": [TEXT]}),
}


@pytest.mark.parametrize(("prompt", "body"), PROMPTS.values(), ids=PROMPTS)
def test_prompts_on_the_wire(prompt: Prompt, body: dict[str, Any]) -> None:
    assert sent(generate_request(chat(), prompt)) == {"model": "llava", "stream": False, **body, **USUAL}


OWN_SIZE = {"options": {"num_ctx": 4096}}
EMBEDDED = {"dimensions": 64, "keep_alive": "5m"}
OWN_OPTIONS = {"num_gpu": 0, "context_size": None, "options": {"seed": 1}}
EMBED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {"truncate": False, **OWN_SIZE}),
    "truncate": ({"overflow": "truncate"}, {"truncate": True, **OWN_SIZE}),
    "split": ({"overflow": "split"}, {"truncate": False, **OWN_SIZE}),
    "all": (
        {**EMBEDDED, **OWN_OPTIONS},
        {"truncate": False, **EMBEDDED, "options": {"num_gpu": 0, "seed": 1}},
    ),
}


@pytest.mark.parametrize(("values", "body"), EMBED.values(), ids=EMBED)
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
LOOP: list[Any] = []
LOOP.append(LOOP)
AT = "messages[1].tool_calls[0].function.arguments."


NOT_JSON: dict[str, tuple[dict[str, Any], list[Message], str]] = {
    "surrogate in a message": ({}, [user(LONE)], "messages[0].content holds a lone surrogate"),
    "surrogate in a key": ({}, called(**{LONE: 1}), "lone surrogate"),
    "surrogate beside an image": ({}, [user("a", IMAGE, LONE)], "messages[0].content holds"),
    "surrogate in a stop word": ({"stop": [LONE]}, [user("a")], "options.stop[0] holds"),
    "NaN option": ({"options": {"x": float("nan")}}, [user("a")], "options.x is nan"),
    "infinite schema": ({"format": {"const": float("inf")}}, [user("a")], "format.const is inf"),
    **{
        f"{kind} in arguments": ({}, called(x=value), AT + named)
        for kind, value, named in (
            ("surrogate", LONE, "x holds a lone surrogate"),
            ("set", {1, 2}, "x is of type set"),
            ("bytes", [1, b"y"], "x[1] is of type bytes"),
            ("dataclass", user("a"), "x is of type Message"),
            ("number too long", 2**64, "x has more than 64 bits"),
            ("negative number too long", -(2**63) - 1, "x has more than 64 bits"),
            ("NaN", float("nan"), "x is nan"),
            ("infinity", [float("inf")], "x[0] is inf"),
        )
    },
    "key that is no text": ({}, called(x={1: 2}), "key 1 at " + AT + "x"),
    "itself": ({}, called(x=LOOP), "nested over 250 levels"),
    **{
        f"{depth} deep": ({}, called(x=nested(depth)), "nested over 250 levels")
        for depth in (300, 3_000, 200_000)
    },
}


@pytest.mark.parametrize(("values", "messages", "named"), NOT_JSON.values(), ids=NOT_JSON)
def test_what_cannot_be_sent_is_named_by_its_place(
    values: dict[str, Any], messages: list[Message], named: str
) -> None:
    request = chat_request(chat(**values), messages)
    with pytest.raises(UnsupportedContentError) as caught:
        encode(request.body or {})
    assert named in str(caught.value)
    assert len(str(caught.value)) < 500


def test_null_is_no_infinity() -> None:
    request = chat_request(chat(), [user("null and void"), *called(x=None, y=[None, 1.5])])
    assert sent(request)["messages"][2]["tool_calls"][0]["function"]["arguments"] == {
        "x": None,
        "y": [None, 1.5],
    }


def test_a_deep_value_that_can_be_sent() -> None:
    request = chat_request(chat(), called(x=nested(200)))
    assert sent(request)["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"x": nested(200)}


NO_TOOLS = {"function_call_support": False}
DANGLING = Tool("f", parameters={"$ref": "#/nowhere"})
REFUSED: dict[str, tuple[dict[str, Any], list[Message], list[Tool], type[Exception], str]] = {
    "nothing": ({}, [], [], UnsupportedContentError, "no messages"),
    "image": ({"vision_support": False}, [user(IMAGE)], [], CapabilityError, "vision_support=False"),
    "tool": (NO_TOOLS, [user("a")], [Tool("f")], CapabilityError, "function_call_support=False"),
    "17 images": ({}, [user(*[IMAGE] * 9), user(*[IMAGE] * 8)], [], UnsupportedContentError, "at most 16"),
    "dangling reference": ({}, [user("a")], [DANGLING], UnsupportedContentError, "#/nowhere"),
}


@pytest.mark.parametrize(("values", "messages", "tools", "kind", "said"), REFUSED.values(), ids=REFUSED)
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


BOUND = {"max_tokens": 99, "num_predict": 7}
CALLS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}, {}),
    "override": ({"temperature": 1.0}, {"temperature": 0.0}, {"temperature": 0.0}),
    "None takes it away": ({"temperature": 1.0}, {"temperature": None}, {}),
    "fewer": ({"max_tokens": 99}, {"num_predict": 7}, {"num_predict": 7}),
    "fewer by the bound's name": ({"max_tokens": 99}, {"max_tokens": 7}, {"num_predict": 7}),
    "just the bound": ({"max_tokens": 99}, {"max_tokens": 99}, {"num_predict": 99}),
    "more than the default": (BOUND, {"num_predict": 50}, {"num_predict": 50}),
    "back to the bound": (BOUND, {"num_predict": -1}, {"num_predict": 99}),
    "None is the bound": (BOUND, {"max_tokens": None}, {"num_predict": 99}),
    "options are added": ({"options": {"a": 1}}, {"options": {"b": 2}}, {"a": 1, "b": 2}),
    "no further options": ({"options": {"a": 1}}, {"options": None}, {"a": 1}),
    "stop word": ({"stop": ["a"]}, {"stop": "b"}, {"stop": ["b"]}),
}


@pytest.mark.parametrize(("values", "call", "options"), CALLS.values(), ids=CALLS)
def test_a_call_may_change(values: dict[str, Any], call: dict[str, Any], options: dict[str, Any]) -> None:
    settings = chat(**values)
    before = settings.model_dump()
    bound = {"num_ctx": 4096, "num_predict": settings.token_bound}
    body = chat_request(check_call(settings, call), [user("a")]).body or {}
    assert body["options"] == {**bound, **options}
    assert settings.model_dump() == before


_CONNECTION = sorted(set(ConnectionSettings.model_fields) - {"timeout", "max_retries"})


@pytest.mark.parametrize(
    "name", ["context_size", "num_ctx", "mode", *EmbeddingSettings.option_fields, *_CONNECTION]
)
def test_a_call_may_not_change(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot change per call"):
        check_call(chat(), {name: 1})


TOO_MANY = "num_predict=5000 asks for more than the upper bound max_tokens=4096"
BAD_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "more than the bound": ({"num_predict": 5000}, TOO_MANY),
    "more than the bound, by its name": ({"max_tokens": 5000}, TOO_MANY),
    "both": ({"num_predict": 1, "max_tokens": 5000}, "give one of them"),
    "misspelt": ({"temprature": 1}, "did you mean 'temperature'?"),
    "foreign": ({"context_window": 1}, "here it is called context_size"),
    "NaN": ({"temperature": float("nan")}, "temperature"),
    "option with a field": ({"options": {"temperature": 1}}, "has a field of its own"),
    "num_ctx through the back door": ({"options": {"num_ctx": 1}}, "set context_size="),
    "num_gpu through the back door": ({"options": {"num_gpu": 1}}, "has a field of its own"),
}


@pytest.mark.parametrize(("call", "said"), BAD_CALLS.values(), ids=BAD_CALLS)
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
