"""What servers said went wrong: recorded bodies of three versions, and proxies' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_dify import errors
from ollama_dify.wire.server_errors import error_from_response, error_in_stream, retry_after

RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "errors.json").read_text()
)
URL = "http://h:11434/api/chat"
NOW_S = 1_700_000_000.0


def classified(status: int, body: bytes, headers: dict[str, str] | None = None) -> errors.OllamaError:
    return error_from_response(status, headers or {}, body, url=URL, model="llava", now_s=NOW_S)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row['versions'][0]}-{row['name']}") for row in RECORDED]
)
def test_recorded_errors(row: dict[str, Any]) -> None:
    if row["status"] == 200:
        error = error_in_stream(row["body"].encode(), model="llava")
    else:
        error = classified(row["status"], row["body"].encode())
        assert error.url == URL
    assert type(error).__name__ == row["expected"]
    assert error.retryable is row["retryable"]
    assert (error.status, error.model) == (row["status"], "llava")
    assert error.hint
    if isinstance(error, errors.ContextOverflowError):
        assert (error.prompt_tokens, error.limit) == (row.get("prompt_tokens"), row.get("limit"))
    # the server's own words are shown, JSON around them is not
    assert '{"error"' not in str(error)
    assert (
        "\\" not in error.message or "nonsense" in row["body"] or "ref" in row["body"] or "xml" in row["body"]
    )


def said(text: str) -> str:
    return json.dumps({"error": text})


# Status, body, the error, and when to try again.
FAULTS = {
    "cloud 429": (429, '{"StatusCode":429,"error":"too many"}', "RateLimitError", "later"),
    "cloud 502": (502, said('Post "https://x": EOF'), "ServerError", "later"),
    "proxy 502": (502, "<html><h1>Bad Gateway</h1></html>", "ServerError", "later"),
    "proxy 504": (504, "<html>", "ServerError", "later"),
    "408": (408, "", "ServerError", "later"),
    "cloud disabled": (403, said("cloud disabled"), "PermissionDeniedError", "never"),
    "503 empty": (503, "", "ServerBusyError", "later"),
    "loading": (500, said("unexpected server status: llm server loading model"), "ServerError", "later"),
    "slots": (500, said("no slots available after 10 retries"), "ServerError", "later"),
    "runner stopped": (500, said("model runner has unexpectedly stopped, this may"), "ServerError", "once"),
    "start timeout": (500, said("timed out waiting for llama-server to start"), "ServerError", "never"),
    "process gone": (500, said("llama-server process has terminated: exit 2"), "ServerError", "never"),
    "out of memory": (500, said("cuda: out of memory"), "ServerError", "never"),
    "499": (499, said("request cancelled"), "InvalidRequestError", "never"),
    "transient embed 400": (400, said('do embedding request: Post "http://…": EOF'), "ServerError", "later"),
    "embed status": (400, said("unexpected server status: llm server error"), "ServerError", "later"),
    "HTML 400": (400, "<html>nope</html>", "ProtocolError", "never"),
    "null": (400, "null", "InvalidRequestError", "never"),
    "null error": (400, '{"error":null}', "InvalidRequestError", "never"),
    "unknown status": (418, "", "ProtocolError", "never"),
}


@pytest.mark.parametrize(("status", "body", "kind", "again"), FAULTS.values(), ids=FAULTS)
def test_faults(status: int, body: str, kind: str, again: str) -> None:
    error = classified(status, body.encode())
    assert (type(error).__name__, error.retryable, error.retry_once) == (
        kind,
        again != "never",
        again == "once",
    )


@pytest.mark.parametrize(
    ("given", "known"), [("https://ollama.com/connect?x=1",) * 2, (5, None), (None, None), ({"a": 1}, None)]
)
def test_sign_in_address(given: Any, known: str | None) -> None:
    error = classified(401, orjson.dumps({"error": "unauthorized", "signin_url": given}))
    assert isinstance(error, errors.AuthenticationError)
    assert error.signin_url == known
    assert known is None or known in str(error)


def test_an_empty_403_is_the_host_check() -> None:
    assert "OLLAMA_HOST" in str(classified(403, b""))


def test_a_redirect_names_where_to() -> None:
    error = classified(307, b"", {"location": "http://elsewhere/api/chat"})
    assert type(error) is errors.ProtocolError
    assert "http://elsewhere/api/chat" in str(error)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(None, None, id="missing"),
        pytest.param("", None, id="empty"),
        pytest.param("3", 3.0, id="seconds"),
        pytest.param("1.5", 1.5, id="fraction"),
        pytest.param("99999", 120.0, id="at most 120"),
        pytest.param("inf", 120.0, id="infinity"),
        pytest.param("-5", 0.0, id="negative"),
        pytest.param("nan", None, id="nan"),
        pytest.param("Tue, 14 Nov 2023 22:13:50 GMT", 30.0, id="date"),
        pytest.param("Tue, 14 Nov 2023 22:13:00 GMT", 0.0, id="past date"),
        pytest.param("soon", None, id="words"),
        pytest.param("Tue, 99 Nov 99999 22:13:00 GMT", None, id="impossible date"),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW_S) == seconds


def test_retry_after_reaches_the_error() -> None:
    assert classified(429, b"{}", {"retry-after": "7"}).retry_after_s == 7.0


def test_a_long_message_is_cut_and_cleaned() -> None:
    error = classified(500, b"\x1b[31mred\x1b[0m\r\n\x00" + b"x" * 100_000)
    assert len(error.message) < 600
    assert error.message.isprintable()


@pytest.mark.parametrize("depth", [5, 50, 1000, 100_000])
def test_hostile_nesting_ends(depth: int) -> None:
    error = classified(500, b'{"error":' * depth + b'"deep"' + b"}" * depth)
    assert type(error) is errors.ServerError


@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["error", "message", "type", "n_ctx", "signin_url"]), inner, max_size=3
                )
            ),
            max_leaves=8,
        ).map(orjson.dumps),
    ),
    status=st.sampled_from([400, 401, 403, 404, 429, 500, 503, 599]),
)
def test_any_body_gives_an_error_of_the_tree(body: bytes, status: int) -> None:
    error = classified(status, body)
    assert isinstance(error, errors.OllamaError)
    assert error.status == status
    assert str(error)
    assert error_in_stream(body, model=None).status == 200
