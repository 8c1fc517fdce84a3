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


FAULTS = [
    pytest.param(
        429, {}, '{"StatusCode":429,"error":"too many"}', "RateLimitError", True, False, id="cloud 429"
    ),
    pytest.param(
        502, {}, '{"error":"Post \\"https://x\\": EOF"}', "ServerError", True, False, id="cloud 502"
    ),
    pytest.param(502, {}, "<html><h1>Bad Gateway</h1></html>", "ServerError", True, False, id="proxy 502"),
    pytest.param(504, {}, "<html>", "ServerError", True, False, id="proxy 504"),
    pytest.param(408, {}, "", "ServerError", True, False, id="408"),
    pytest.param(
        403, {}, '{"error":"cloud disabled"}', "PermissionDeniedError", False, False, id="cloud disabled"
    ),
    pytest.param(503, {}, "", "ServerBusyError", True, False, id="503 empty"),
    pytest.param(
        500,
        {},
        '{"error":"unexpected server status: llm server loading model"}',
        "ServerError",
        True,
        False,
        id="loading",
    ),
    pytest.param(
        500, {}, '{"error":"no slots available after 10 retries"}', "ServerError", True, False, id="slots"
    ),
    pytest.param(
        500,
        {},
        '{"error":"model runner has unexpectedly stopped, this may be …"}',
        "ServerError",
        True,
        True,
        id="runner stopped",
    ),
    pytest.param(
        500,
        {},
        '{"error":"timed out waiting for llama-server to start - progress 0.00"}',
        "ServerError",
        False,
        False,
        id="start timeout",
    ),
    pytest.param(
        500,
        {},
        '{"error":"llama-server process has terminated: exit status 2"}',
        "ServerError",
        False,
        False,
        id="process gone",
    ),
    pytest.param(500, {}, '{"error":"cuda: out of memory"}', "ServerError", False, False, id="out of memory"),
    pytest.param(499, {}, '{"error":"request cancelled"}', "InvalidRequestError", False, False, id="499"),
    pytest.param(
        400,
        {},
        '{"error":"do embedding request: Post \\"http://127.0.0.1:39/embedding\\": EOF"}',
        "ServerError",
        True,
        False,
        id="transient embed 400",
    ),
    pytest.param(
        400,
        {},
        '{"error":"unexpected server status: llm server error"}',
        "ServerError",
        True,
        False,
        id="embed status",
    ),
    pytest.param(400, {}, "<html>nope</html>", "ProtocolError", False, False, id="HTML 400"),
    pytest.param(400, {}, "null", "InvalidRequestError", False, False, id="null"),
    pytest.param(400, {}, '{"error":null}', "InvalidRequestError", False, False, id="null error"),
    pytest.param(418, {}, "", "ProtocolError", False, False, id="unknown status"),
    pytest.param(307, {"location": "http://e/x"}, "", "ProtocolError", False, False, id="redirect"),
]


@pytest.mark.parametrize(("status", "headers", "body", "kind", "retryable", "once"), FAULTS)
def test_faults(
    status: int, headers: dict[str, str], body: str, kind: str, retryable: bool, once: bool
) -> None:
    error = classified(status, body.encode(), headers)
    assert (type(error).__name__, error.retryable, error.retry_once) == (kind, retryable, once)


def test_sign_in_address() -> None:
    error = classified(401, b'{"error":"unauthorized","signin_url":"https://ollama.com/connect?x=1"}')
    assert isinstance(error, errors.AuthenticationError)
    assert error.signin_url == "https://ollama.com/connect?x=1"
    assert error.signin_url in str(error)


@pytest.mark.parametrize("url", [5, None, {"a": 1}])
def test_a_sign_in_address_of_another_type_is_none(url: Any) -> None:
    error = classified(401, orjson.dumps({"error": "unauthorized", "signin_url": url}))
    assert isinstance(error, errors.AuthenticationError)
    assert error.signin_url is None


def test_an_empty_403_is_the_host_check() -> None:
    assert "OLLAMA_HOST" in str(classified(403, b""))


def test_a_redirect_names_where_to() -> None:
    assert "http://elsewhere/api/chat" in str(classified(307, b"", {"location": "http://elsewhere/api/chat"}))


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
