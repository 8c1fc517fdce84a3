"""A conversation against the context: what may be dropped, what is dropped, what the answer says of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_dify import (
    AsyncOllamaClient,
    ChatResult,
    ChatSettings,
    ContextOverflowError,
    Message,
    OllamaClient,
    Prompt,
    TokenCount,
    ToolCall,
    assistant,
    system,
    user,
)
from ollama_dify.client.trim import check_uncut, drop_oldest, droppable, kept, length, was_cut
from ollama_dify.testing import Fault, RecordedRequest, SimulatedModel, SimulatedOllama
from ollama_dify.wire.requests import chat_request
from ollama_dify.wire.responses import ChatChunk, Finish, Usage

TRIMMED = Path(__file__).parent.parent / "data" / "captures" / "trim.json.gz"
VERSIONS = ("0.24.0", "0.32.15", "0.33.0-rc2")


def call(number: int) -> ToolCall:
    return ToolCall("f", {"n": number}, f"call_{number}")


def result(number: int | None) -> Message:
    return Message(
        "tool", user("r").content, tool_name="f", tool_call_id=None if number is None else f"call_{number}"
    )


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Roles in any order; each result answers an earlier call, at once or later, by id or by place."""
    open_calls: list[int] = []
    messages: list[Message] = []
    for number in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(["system", "user", "user", "assistant", "call", "result", "place"]))
        text = draw(st.text(max_size=40))
        if kind == "call":
            open_calls.append(number)
            messages.append(assistant(text, tool_calls=[call(number)]))
        elif kind == "result" and open_calls:
            messages.append(result(draw(st.sampled_from(open_calls))))
        elif kind == "place" and messages and messages[-1].tool_calls:
            messages.append(result(None))
        else:
            role: Any = kind if kind in ("system", "user") else "assistant"
            messages.append(Message(role, user(text).content))
    return messages


@given(conversations())
def test_what_must_stay_is_never_droppable(messages: list[Message]) -> None:
    groups = droppable(messages)
    positions = [index for group in groups for index in group]
    assert len(positions) == len(set(positions))
    last_user = max((i for i, message in enumerate(messages) if message.role == "user"), default=0)
    for index in positions:
        assert messages[index].role != "system"
        assert index < last_user
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)


@given(conversations())
def test_a_call_and_its_result_go_together(messages: list[Message]) -> None:
    callers = {made.id: index for index, message in enumerate(messages) for made in message.tool_calls}
    for group in droppable(messages):
        for index, message in enumerate(messages):
            if message.role == "tool":
                caller = index - 1 if message.tool_call_id is None else callers[message.tool_call_id]
                assert (index in group) == (caller in group)


@given(conversations(), st.floats(0, 500))
def test_dropping_goes_on_until_nothing_is_left(messages: list[Message], wanted: float) -> None:
    dropped: tuple[int, ...] = ()
    seen = 0
    while (more := drop_oldest(messages, dropped, wanted)) is not None:
        assert set(dropped) < set(more)
        groups = droppable(messages)
        whole = [group for group in groups if set(group) <= set(more)]
        assert set(more) == {index for group in whole for index in group}
        assert whole == groups[: len(whole)]
        # One exchange less would not have been enough.
        fresh = [group for group in whole if not set(group) <= set(dropped)]
        freed = [length([messages[index] for index in group]) for group in fresh]
        assert len(fresh) == 1 or sum(freed[:-1]) < wanted
        dropped, seen = more, seen + 1
        assert seen <= len(messages)
    assert kept(messages, dropped) == [m for i, m in enumerate(messages) if i not in set(dropped)]
    assert set(dropped) == {index for group in droppable(messages) for index in group}


CALLING = assistant(tool_calls=[call(1)])
GROUPS = [
    pytest.param([], [], id="nothing"),
    pytest.param([user("a")], [], id="one question"),
    pytest.param([system("s"), user("a"), assistant("b"), user("c")], [(1, 2)], id="one exchange"),
    pytest.param([assistant("hi"), user("a"), assistant("b"), user("c")], [(0,), (1, 2)], id="a greeting"),
    pytest.param([user("a"), user("b"), user("c")], [(0,), (1,)], id="questions in a row"),
    pytest.param([user("a"), system("s"), assistant("b"), user("c")], [(0, 2)], id="system in between"),
    pytest.param(
        [user("a"), CALLING, result(1), assistant("b"), user("c")], [(0, 1, 2, 3)], id="a call and its result"
    ),
    pytest.param([user("a"), CALLING, user("b"), result(1)], [], id="a result after the last question"),
    pytest.param(
        [user("a"), CALLING, user("b"), result(1), assistant("c"), user("d")],
        [(0, 1, 2, 3, 4)],
        id="a question between call and result",
    ),
    pytest.param(
        [user("x"), user("a"), CALLING, user("b"), assistant("c"), user("d"), result(1), user("e")],
        [(0,), (1, 2, 3, 4, 5, 6)],
        id="a result two exchanges later",
    ),
    pytest.param([user("a"), CALLING, result(None), user("c")], [(0, 1, 2)], id="a result without an id"),
    pytest.param([user("a"), CALLING, result(1)], [], id="the tool loop under way"),
    pytest.param([system("s"), assistant("b")], [], id="no question"),
]


@pytest.mark.parametrize(("messages", "groups"), GROUPS)
def test_groups(messages: list[Message], groups: list[tuple[int, ...]]) -> None:
    assert sorted(droppable(messages)) == groups


# What the server made of a prompt, by its count and ours.

WAS_CUT = [
    pytest.param(4096, None, 4096, True, id="as long as the context"),
    pytest.param(None, None, 9999, None, id="the server decides the context"),
    pytest.param(4096, None, 50, None, id="nobody counted"),
    pytest.param(4096, TokenCount(5000, True), 2050, True, id="longer, counted exactly"),
    pytest.param(4096, TokenCount(4095, True), 4095, False, id="just fits"),
    pytest.param(4096, TokenCount(4096, True), 2050, True, id="one too many"),
    pytest.param(4096, TokenCount(4000, False), 3990, False, id="the bound fits"),
    pytest.param(4096, TokenCount(4100, False), 4090, None, id="the bound is above, the count is near it"),
    pytest.param(4096, TokenCount(9000, False), 2050, None, id="far below the bound"),
]


def last(tokens: int) -> ChatChunk:
    return ChatChunk(finish=Finish("stop", "m", usage=Usage(tokens, 1)))


@pytest.mark.parametrize(("size", "expected", "reported", "cut"), WAS_CUT)
def test_whether_the_server_cut(
    size: int | None, expected: TokenCount | None, reported: int, cut: bool | None
) -> None:
    assert was_cut(reported, size, expected) is cut


def test_an_answer_from_a_prompt_cut_against_orders_is_an_error() -> None:
    assert check_uncut(last(63), 64) == last(63)
    with pytest.raises(ContextOverflowError) as caught:
        check_uncut(last(64), 64)
    assert (caught.value.prompt_tokens, caught.value.limit) == (64, 63)


# Against the simulated server, whose cutting is tested against recordings.


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[SimulatedOllama]:
    models = [
        SimulatedModel("tiny-chat", ("completion", "tools", "thinking"), context_length=32768),
        SimulatedModel("tiny-plain", ("completion",), template="plain", context_length=32768),
        SimulatedModel("tiny-native", ("completion", "tools"), template="native", context_length=32768),
        SimulatedModel("llava", ("completion", "vision"), context_length=32768),
    ]
    with SimulatedOllama(models, version=request.param) as running:
        yield running


def settings(server: SimulatedOllama, **values: Any) -> ChatSettings:
    return ChatSettings(**{"model": "tiny-chat", "base_url": server.base_url, "max_retries": 0, **values})


def one_way(server: SimulatedOllama, way: int, asked: Any, **values: Any) -> ChatResult:
    """The answer by one of four ways: whole and streamed, sync and async."""
    given, kind = settings(server, **values), "chat" if isinstance(asked, list) else "generate"

    async def await_it() -> ChatResult:
        async with AsyncOllamaClient(given) as client:
            if way == 2:
                return await getattr(client, kind)(asked)
            stream = getattr(client, f"{kind}_stream")(asked)
            async for _ in stream:
                pass
            return stream.result

    if way >= 2:
        return asyncio.run(await_it())
    with OllamaClient(given) as client:
        if way == 0:
            return getattr(client, kind)(asked)
        stream = getattr(client, f"{kind}_stream")(asked)
        list(stream)
        return stream.result


def answers(server: SimulatedOllama, asked: list[Message] | str | Prompt, **values: Any) -> list[ChatResult]:
    return [one_way(server, way, asked, **values) for way in range(4)]


def generations(server: SimulatedOllama) -> list[dict[str, Any]]:
    """The bodies of requests that an answer was made from."""
    return [
        request.body
        for request in server.requests
        if request.path in ("/api/chat", "/api/generate") and not request.body.get("_debug_render_only")
    ]


WORDS = " ".join(f"word{number}" for number in range(400))
TALK = [
    system("You are a pirate."),
    *(
        turn
        for number in range(6)
        for turn in (user(f"question {number} " + "cat " * 40), assistant(f"answer {number} " + "dog " * 40))
    ),
    user("last question"),
]


@pytest.mark.parametrize("asked", [[user(WORDS)], TALK, WORDS], ids=["one", "history", "prompt"])
def test_error_is_what_happens_by_default(server: SimulatedOllama, asked: Any) -> None:
    for way in range(4):
        server.reset()
        with pytest.raises(ContextOverflowError) as caught:
            one_way(server, way, asked, context_size=256)
        assert caught.value.limit == 255
        assert caught.value.prompt_tokens
        assert caught.value.prompt_tokens > 255
        assert f"{caught.value.prompt_tokens} tokens, at most 255 fit" in str(caught.value)
        # Refused by the server, once; where it tells no tokens, they are counted afterwards.
        first, *late = server.requests
        assert first.path == generations_path(asked)
        assert bool(late) is (server.version == "0.24.0")
        assert all("show" in one.path or "tags" in one.path or is_debug(one) for one in late)
        assert server.requests[0].body["truncate"] is False
        assert server.requests[0].body["shift"] is False


def is_debug(request: RecordedRequest) -> bool:
    return bool(request.body["_debug_render_only"])


def generations_path(asked: Any) -> str:
    return "/api/chat" if isinstance(asked, list) else "/api/generate"


@pytest.mark.parametrize("model", ["tiny-chat", "tiny-plain", "tiny-native"])
def test_trim_drops_the_oldest_exchanges_and_says_which(server: SimulatedOllama, model: str) -> None:
    values = {"model": model, "context_size": 512, "max_tokens": 100, "context_overflow": "trim"}
    results = answers(server, TALK, **values)
    assert len({result.finish.dropped for result in results if result.finish}) == 1
    finish = results[0].finish
    assert finish is not None
    assert finish.dropped == tuple(range(1, finish.dropped[-1] + 1))
    assert len(finish.dropped) in range(2, 12, 2)
    assert finish.metadata()["dropped_messages"] == list(finish.dropped)
    assert finish.truncated is None
    # What is sent leaves the reserve free, and one exchange more would not.
    limit = 512 - 1 - 100
    assert finish.usage.input_tokens <= limit
    with OllamaClient(settings(server, **values)) as client:
        more = client.count_tokens(kept(TALK, finish.dropped[:-2]))
    assert more.exact
    assert more.tokens > limit
    expected = chat_request(settings(server, **values), kept(TALK, finish.dropped)).body
    assert expected is not None
    assert all(body["messages"] == expected["messages"] for body in generations(server))


def test_trim_drops_nothing_that_fits(server: SimulatedOllama) -> None:
    for result in answers(server, TALK, context_size=8192, context_overflow="trim"):
        assert result.finish
        assert result.finish.dropped == ()
        assert "dropped_messages" not in result.finish.metadata()


def test_trim_keeps_what_must_stay_and_then_is_an_error(server: SimulatedOllama) -> None:
    asked = [user("a"), assistant("b"), user(WORDS)]
    for way in range(4):
        with pytest.raises(ContextOverflowError) as caught:
            one_way(server, way, asked, context_size=256, context_overflow="trim")
        assert caught.value.limit == 255
        assert (caught.value.prompt_tokens or 0) > 255


def test_trim_without_the_reserve_still_answers(server: SimulatedOllama) -> None:
    """The last question alone is over the limit, and yet within the context."""
    asked = [user("a"), assistant("b"), user("cat " * 120)]
    for result in answers(server, asked, context_size=300, context_overflow="trim"):
        assert result.text or result.thinking
        assert result.finish
        assert result.finish.dropped == (0, 1)


def test_trim_where_the_server_renders_nothing(server: SimulatedOllama) -> None:
    """Our own bound is enough to end within the context."""
    unknown = Fault("status", status=400, data=b'{"error":"unknown field"}')
    server.fault(unknown, times=None, when=lambda asked: bool((asked.body or {}).get("_debug_render_only")))
    results = answers(server, TALK, context_size=512, max_tokens=100, context_overflow="trim")
    for result in results:
        assert result.finish
        assert result.finish.dropped
        assert result.finish.usage.input_tokens <= 411


@pytest.mark.parametrize(
    "asked",
    [[user(WORDS)], TALK, WORDS, Prompt(WORDS, raw=True), Prompt(WORDS, system="Be brief.")],
    ids=["one", "history", "prompt", "raw", "prompt-system"],
)
def test_truncate_lets_the_server_cut_and_says_so(server: SimulatedOllama, asked: Any) -> None:
    for result in answers(server, asked, context_size=256, context_overflow="truncate"):
        assert result.text or result.thinking
        assert result.finish
        assert result.finish.truncated is True
        assert result.finish.metadata()["truncated"] is True
    assert all(body["truncate"] and body["shift"] for body in generations(server))


@pytest.mark.parametrize(
    "prompt",
    [Prompt("a", template="{{ .Prompt }}"), Prompt("[img-0] a", raw=True)],
    ids=["a template of its own", "raw"],
)
def test_a_prompt_that_nobody_can_count_is_not_judged(prompt: Prompt) -> None:
    with SimulatedOllama() as server:
        values = {"model": "llama3.2", "context_overflow": "truncate"}
        for answered in answers(server, prompt, **values):
            assert answered.finish
            assert answered.finish.truncated is (False if prompt.raw else None)


# What a real server kept of the same conversations.

RECORDED = [
    case
    for case in json.loads(gzip.decompress(TRIMMED.read_bytes()))
    if case["prompt_eval_count"] and case["model"] in ("tiny-chat", "tiny-plain") and case["num_ctx"] > 63
]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['model']}-{case['num_ctx']}")
def test_trim_keeps_at_most_what_the_server_itself_would(case: dict[str, Any]) -> None:
    messages = [
        Message(
            turn["role"],
            user(turn["content"]).content,
            tool_calls=tuple(
                ToolCall(made["function"]["name"], made["function"]["arguments"], made.get("id"))
                for made in turn.get("tool_calls", ())
            ),
            tool_name=turn.get("tool_name"),
        )
        for turn in case["messages"]
    ]
    models = [
        SimulatedModel("tiny-chat", ("completion", "tools", "thinking"), context_length=32768),
        SimulatedModel("tiny-plain", ("completion",), template="plain", context_length=32768),
    ]
    with SimulatedOllama(models) as server:
        given = settings(
            server,
            model=case["model"],
            context_size=case["num_ctx"],
            max_tokens=1,
            think=case.get("think"),
            context_overflow="trim",
        )
        with OllamaClient(given) as client:
            whole = client.count_tokens(messages)
            try:
                finish = client.chat(messages).finish
            except ContextOverflowError:
                # What must stay is too long by itself: the server cuts into it.
                assert client.count_tokens(kept(messages, [i for g in droppable(messages) for i in g])).tokens
                assert whole.tokens >= case["num_ctx"]
                return
    assert finish is not None
    assert finish.usage.input_tokens <= max(case["prompt_eval_count"], case["num_ctx"] - 2)
    if whole.tokens <= case["num_ctx"] - 2:
        assert finish.dropped == ()
        assert finish.usage.input_tokens == case["prompt_eval_count"]
    else:
        assert finish.dropped


@pytest.mark.parametrize("held", [5, "text", {"a": 1}, [1, None]], ids=str)
def test_a_file_of_renderings_may_hold_anything(monkeypatch: pytest.MonkeyPatch, held: Any) -> None:
    monkeypatch.setattr(
        "ollama_dify.tokens.cache.load", lambda *names: held if "think" in names[-1] else None
    )
    with SimulatedOllama() as server, OllamaClient(settings(server, model="llama3.2")) as client:
        assert client.counter().text("Hello there").tokens > 0
