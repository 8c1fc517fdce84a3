"""Bytes to chunks: however the bytes are cut, the chunks, the errors and what had arrived are the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_dify import ChatChunk, ChatResult, Finish, ToolCall, Usage
from ollama_dify.errors import (
    ContextOverflowError,
    EmptyResponseError,
    IncompleteResponseError,
    OllamaError,
    ProtocolError,
    ServerError,
)
from ollama_dify.wire import streaming
from ollama_dify.wire.streaming import MAX_LINE, ChatDecoder


def line(content: str = "", *, done: bool = False, **more: Any) -> bytes:
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    return orjson.dumps({"model": "m", "message": message, "done": done, **more}) + b"\n"


END = line(done=True, done_reason="stop", prompt_eval_count=3, eval_count=2)
FINISH = Finish("stop", "m", usage=Usage(3, 2))
HELLO = line("Hel") + line("lo") + END


def decode(pieces: Iterable[bytes], **options: Any) -> tuple[list[ChatChunk], OllamaError | None, ChatResult]:
    """Drive a decoder as a client does."""
    decoder = ChatDecoder(model="m", **options)
    chunks: list[ChatChunk] = []
    try:
        for piece in pieces:
            chunks += decoder.feed(piece)
            if decoder.error is not None:
                break
        chunks += decoder.close()
    except OllamaError as error:
        return chunks, error, decoder.result()
    assert decoder.finished
    return chunks, None, decoder.result()


def outcome(pieces: Iterable[bytes]) -> tuple[Any, ...]:
    """What a caller sees of an answer: chunks, kind and text of the error, what had arrived."""
    chunks, error, result = decode(pieces)
    if error is None:
        return chunks, result
    assert isinstance(error.partial, ChatResult)
    return chunks, type(error), error.message, error.partial


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    places = sorted(places)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def test_a_plain_answer() -> None:
    chunks, error, result = decode([HELLO])
    assert chunks == [ChatChunk("Hel"), ChatChunk("lo"), ChatChunk(finish=FINISH)]
    assert error is None
    assert result == ChatResult("Hello", finish=FINISH)


ERROR_LINE = b'{"error":"an error was encountered while running the model: unexpected EOF"}\n'
CALL = {"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"a": [1]}}}]}

ANSWERS = {
    "plain": (HELLO, None, "Hello"),
    "umlauts, kanji and emoji": (line("naïve 鏡 🪞") + END, None, "naïve 鏡 🪞"),
    "U+0085 and U+2028": (
        "".join(
            ['{"message":{"role":"assistant","content":"a\u0085b\u2028c\u2029d"}', ',"done":false}\n']
        ).encode()
        + END,
        None,
        "a\u0085b\u2028c\u2029d",
    ),
    "CRLF": (HELLO.replace(b"\n", b"\r\n"), None, "Hello"),
    "blank lines": (HELLO.replace(b"\n", b"\n\n \r\n\t\n"), None, "Hello"),
    "no newline at the end": (HELLO[:-1], None, "Hello"),
    "spaces around": (b"  " + line("a")[:-1] + b"  \n" + END, None, "a"),
    "error line": (line("Hel") + ERROR_LINE, ServerError, "Hel"),
    "error line first": (ERROR_LINE, ServerError, ""),
    "overflow inside a stream": (
        line("a") + b'{"error":"the prompt is longer than the context length currently"}\n',
        ContextOverflowError,
        "a",
    ),
    "empty error": (line("a") + b'{"error":""}\n', ServerError, "a"),
    "null error": (line("a") + b'{"error":null}\n', ServerError, "a"),
    "nested error object": (line("a") + b'{"error":{"message":"boom","code":5}}\n', ServerError, "a"),
    "error beside an answer": (line("a") + line("b", error="boom"), ServerError, "a"),
    "cut between lines": (line("Hel"), IncompleteResponseError, "Hel"),
    "cut in a line": (line("Hel") + END[:20], ProtocolError, "Hel"),
    "nothing": (b"", IncompleteResponseError, ""),
    "only blanks": (b"\n\n", IncompleteResponseError, ""),
    "two objects on a line": (line("a") + line("b")[:-1] + END, ProtocolError, "a"),
    "BOM": (b"\xef\xbb\xbf" + HELLO, ProtocolError, ""),
    "garbage": (line("a") + b"\xff\x00garbage\r\n" + END, ProtocolError, "a"),
    "HTML": (b"<html>\n<h1>Bad Gateway</h1>\n", ProtocolError, ""),
    "lone surrogate": (line("a") + line("b").replace(b'"b"', b'"\\ud800"'), ProtocolError, "a"),
    "5,000 digits": (
        line("a") + END.replace(b'"eval_count":2', b'"eval_count":' + b"9" * 5000),
        ProtocolError,
        "a",
    ),
    "20 digits": (
        line("a") + END.replace(b'"eval_count":2', b'"eval_count":' + b"9" * 20),
        ProtocolError,
        "a",
    ),
    "NaN": (line("a") + END.replace(b":2", b":NaN"), ProtocolError, "a"),
    "1e999": (line("a") + END.replace(b":2", b":1e999"), ProtocolError, "a"),
    "duplicate keys": (line("a").replace(b'"done":', b'"done":5,"done":') + END, None, "a"),
    "after the end": (HELLO + line("more"), ProtocolError, "Hello"),
    "blank lines after the end": (HELLO + b"\n\r\n", None, "Hello"),
    "only loaded": (line(done=True, done_reason="load"), EmptyResponseError, ""),
    "only unloaded": (line(done=True, done_reason="unload"), EmptyResponseError, ""),
    "loaded and answered": (line("a") + line(done=True, done_reason="load"), None, "a"),
    "cut by the limit": (line("a") + line(done=True, done_reason="length"), None, "a"),
    "no reason": (line("a") + line(done=True), None, "a"),
    "an empty answer": (line(done=True, done_reason="stop"), None, ""),
    "text in the last chunk": (line("a") + line("b", done=True), None, "ab"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str) -> None:
    data, kind, text = ANSWERS[name]
    _, error, result = decode([data])
    assert type(error) is (kind or type(None))
    assert result.text == text
    if error is not None:
        assert error.partial == result
        assert not error.retryable or isinstance(error, EmptyResponseError)


@pytest.mark.parametrize("name", ANSWERS)
def test_every_way_to_cut_gives_the_same(name: str) -> None:
    data, _, _ = ANSWERS[name]
    whole = outcome([data])
    assert outcome(data[at : at + 1] for at in range(len(data))) == whole
    step = max(1, len(data) // 400)
    for at in range(0, len(data) + 1, step):
        assert outcome(cut(data, [at])) == whole


@given(
    lines=st.lists(
        st.sampled_from(
            [line("a"), line("é鏡"), b"\n", b"\r\n", END, ERROR_LINE, b"{}\n", b"[\n", b"\xff", b"{"]
        ),
        max_size=8,
    ),
    data=st.data(),
)
def test_random_bodies_give_the_same(lines: list[bytes], data: st.DataObject) -> None:
    body = b"".join(lines)
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    assert outcome(cut(body, places)) == outcome([body])


@pytest.mark.parametrize("depth", [1_000, 200_000])
def test_deep_json(depth: int) -> None:
    deep = line("a") + b'{"message":' * depth + b"1" + b"}" * depth + b"\n"
    chunks, error, _ = decode([deep])
    assert chunks == [ChatChunk("a")]
    assert type(error) is ProtocolError


def test_calls_thinking_and_logprobs_are_kept() -> None:
    data = (
        line(message={"thinking": "h"})
        + line(message={"thinking": "m"})
        + line("a", logprobs=[{"token": "a"}])
        + line(message=CALL)
        + line(done=True, done_reason="stop", message=CALL)
    )
    _, error, result = decode([data])
    call = ToolCall("f", {"a": [1]}, "c1")
    assert error is None
    assert (result.thinking, result.text, result.tool_calls) == ("hm", "a", (call, call))
    assert result.logprobs == ({"token": "a"},)


def test_generate() -> None:
    data = b'{"response":"Hel","done":false}\n{"response":"lo","done":true,"done_reason":"stop"}\n'
    assert decode([data], generated=True)[2].text == "Hello"
    assert type(decode([data])[1]) is ProtocolError


def test_chunks_before_a_fault_come_first_and_then_the_error_stays() -> None:
    decoder = ChatDecoder()
    assert decoder.feed(line("a") + ERROR_LINE + line("b")) == [ChatChunk("a")]
    for again in (lambda: decoder.feed(END), decoder.close, decoder.close):
        with pytest.raises(ServerError) as caught:
            again()
        assert caught.value.partial == ChatResult("a")


def test_an_error_that_was_raised_stays() -> None:
    decoder = ChatDecoder()
    with pytest.raises(ServerError):
        decoder.feed(ERROR_LINE)
    with pytest.raises(ServerError):
        decoder.close()


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        pytest.param(line("Hello", done=True, done_reason="stop"), None, "Hello", id="answer"),
        pytest.param(line("Hel"), IncompleteResponseError, "Hel", id="done:false"),
        pytest.param(line("Hel")[:-5], ProtocolError, "", id="cut"),
        pytest.param(b"", EmptyResponseError, "", id="empty"),
        pytest.param(b" \r\n", EmptyResponseError, "", id="blank"),
        pytest.param(ERROR_LINE, ServerError, "", id="error in a 200"),
        pytest.param(line(done=True, done_reason="load"), EmptyResponseError, "", id="only loaded"),
        pytest.param(b"<html>", ProtocolError, "", id="HTML"),
    ],
)
def test_whole(body: bytes, kind: type[OllamaError] | None, text: str) -> None:
    decoder = ChatDecoder(model="m")
    if kind is None:
        assert decoder.whole(body).text == text
        return
    with pytest.raises(kind) as caught:
        decoder.whole(body)
    assert type(caught.value) is kind
    assert isinstance(caught.value.partial, ChatResult)
    assert caught.value.partial.text == text


def test_only_a_load_is_worth_one_more_try() -> None:
    said = {reason: decode([line(done=True, done_reason=reason)])[1] for reason in ("load", "unload")}
    told = {
        reason: (error.retryable, error.retry_once) for reason, error in said.items() if error is not None
    }
    assert told == {"load": (True, True), "unload": (False, True)}


LONGEST = len(line("12345")) - 1


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        pytest.param(line("12345") * 2, IncompleteResponseError, "1234512345", id="as long as may be"),
        pytest.param(line("123456"), ProtocolError, "", id="one too long"),
        pytest.param(line("123456")[:-1], ProtocolError, "", id="one too long, open"),
        pytest.param(line("1") + line("123456") + line("2"), ProtocolError, "1", id="after good ones"),
        pytest.param(line("1") + b" " * 300 + b"\n", ProtocolError, "1", id="too many blanks"),
    ],
)
def test_over_long_lines(
    monkeypatch: pytest.MonkeyPatch, data: bytes, kind: type[OllamaError], text: str
) -> None:
    monkeypatch.setattr(streaming, "MAX_LINE", LONGEST)
    whole = outcome([data])
    assert (whole[1], whole[-1].text) == (kind, text)
    assert outcome(data[at : at + 1] for at in range(len(data))) == whole
    for at in range(len(data)):
        assert outcome(cut(data, [at])) == whole


def test_a_line_over_the_cap_is_refused_before_it_is_held() -> None:
    decoder = ChatDecoder()
    assert decoder.feed(line("a")) == [ChatChunk("a")]
    fed = 0
    with pytest.raises(ProtocolError, match="over 16777216 bytes") as caught:
        while fed <= 2 * MAX_LINE:
            decoder.feed(b"x" * 65_536)
            fed += 65_536
    assert fed == MAX_LINE
    assert caught.value.partial == ChatResult("a")
