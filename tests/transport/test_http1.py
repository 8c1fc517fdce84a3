"""HTTP/1.1 without sockets: where a body ends, whatever pieces its bytes come in."""

from __future__ import annotations

import itertools

import h11
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_dify.transport.http1 import Http1

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def exchange(method: str = "POST") -> Http1:
    return Http1(httpx.Request(method, "http://server:1/api/chat", content=b"{}"))


def read(answer: bytes, cuts: list[int], method: str = "POST") -> tuple[int, bytes, bool, bool]:
    """Status, body, whether it is complete, whether the connection can serve again."""
    http = exchange(method)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(answer)), len(answer)]
    pieces = [answer[a:b] for a, b in itertools.pairwise(edges) if a < b]
    while not http.feed(pieces.pop(0)):
        pass
    payload = http.rest
    for piece in pieces:
        if http.body.finished or http.body.error is not None:
            break
        payload += http.body.feed(piece)
    if http.body.error is not None:
        raise http.body.error
    if not http.body.finished:
        http.body.end()
    return http.status, payload, http.body.finished, http.body.clean and http.keeps


ANSWERS: dict[str, tuple[bytes, bytes, bool]] = {
    "a length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
    "no length": (OK + b"\r\nhello", b"hello", False),
    "length nought": (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "the same length twice": (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "the server closes": (OK + b"Connection: Close\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "closes, among others": (OK + b"Connection: x, close\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "after informational heads": (
        b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
        b"hi",
        True,
    ),
    "chunks": (CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!", True),
    "chunks and a length, which disagree": (
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"hello",
        False,
    ),
    "chunks with line breaks inside": (CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", True),
    "hexadecimal, in both cases": (
        CHUNKED + b"0B\r\nhello hello\r\na\r\n0123456789\r\n0\r\n\r\n",
        b"hello hello0123456789",
        True,
    ),
    "extensions": (CHUNKED + b"2;a=b\r\nhi\r\n1 ; c\r\n!\r\n0;last\r\n\r\n", b"hi!", True),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nDigest: x\r\nB: y\r\n\r\n", b"hi", True),
    "bytes after the body": (OK + b"Content-Length: 2\r\n\r\nhi!", b"hi", False),
    "bytes after the chunks": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n!", b"hi", False),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_cut_anywhere(name: str) -> None:
    answer, body, serves_again = ANSWERS[name]
    whole = read(answer, [])
    assert whole[1:3] == (body, True)
    assert whole[3] is serves_again
    for cut in range(1, len(answer)):
        assert read(answer, [cut])[:3] == whole[:3], cut
    assert read(answer, list(range(len(answer))))[:3] == whole[:3]


def test_the_answer_to_head_has_no_body() -> None:
    assert read(OK + b"Content-Length: 5\r\n\r\n", [], "HEAD")[1:] == (b"", True, True)


BROKEN: dict[str, tuple[bytes, bytes]] = {
    "a length that is not reached": (OK + b"Content-Length: 5\r\n\r\nhell", b"hell"),
    "no last chunk": (CHUNKED + b"5\r\nhello\r\n", b"hello"),
    "half a chunk": (CHUNKED + b"5\r\nhel", b"hel"),
    "no end of the trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"x"),
    "a size that is no number": (CHUNKED + b"2\r\nhi\r\nzz\r\n", b"hi"),
    "a negative size": (CHUNKED + b"-2\r\nhi\r\n", b""),
    "a size with an underscore": (CHUNKED + b"1_0\r\nhi\r\n", b""),
    "a size of 21 digits": (CHUNKED + b"0" * 20 + b"2\r\nhi\r\n", b""),
    "no size": (CHUNKED + b"\r\nhi\r\n", b""),
    "a bare line feed": (CHUNKED + b"2\nhi\n0\n\n", b""),
    "a chunk longer than its size": (CHUNKED + b"2\r\nhiho\r\n0\r\n\r\n", b"hi"),
    "an extension without end": (CHUNKED + b"2\r\nhi\r\n2;" + b"x" * 5000, b"hi"),
    "trailers without end": (CHUNKED + b"2\r\nhi\r\n0\r\n" + b"A: b\r\n" * 5000 + b"\r\n", b"hi"),
    "a trailer without a colon": (CHUNKED + b"2\r\nhi\r\n0\r\nDigest\r\n\r\n", b"hi"),
    "a trailer with NUL": (CHUNKED + b"2\r\nhi\r\n0\r\nA: \0\r\n\r\n", b"hi"),
    "a trailer with a bare line feed": (CHUNKED + b"2\r\nhi\r\n0\r\nA: b\nC: d\r\n\r\n", b"hi"),
    "a trailer that continues another": (CHUNKED + b"2\r\nhi\r\n0\r\nA: b\r\n c\r\n\r\n", b"hi"),
    "a space before a trailer": (CHUNKED + b"2\r\nhi\r\n0\r\n A: b\r\n\r\n", b"hi"),
    "NUL in an extension": (CHUNKED + b"2;a\0\r\nhi\r\n0\r\n\r\n", b""),
    "a trailer without end": (CHUNKED + b"2\r\nhi\r\n0\r\n" + b"A" * 50_000, b"hi"),
}


@pytest.mark.parametrize("cuts", ["whole", "bytes"])
@pytest.mark.parametrize("name", BROKEN)
def test_what_came_before_a_break_is_given(name: str, cuts: str) -> None:
    answer, before = BROKEN[name]
    http = exchange()
    head = answer.index(b"\r\n\r\n") + 4
    assert http.feed(answer[:head])
    body = answer[head:]
    given_: list[bytes] = []
    for piece in [body] if cuts == "whole" else [body[at : at + 1] for at in range(len(body))]:
        given_.append(http.body.feed(piece))
        if http.body.error is not None:
            break
    assert b"".join(given_) == before
    assert not http.body.finished
    with pytest.raises(httpx.RemoteProtocolError):
        if http.body.error is not None:
            raise http.body.error
        http.body.end()


BAD_HEADS = {
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
    "another encoding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "a negative length": OK + b"Content-Length: -1\r\n\r\n",
    "another protocol": b"220 mail.example ESMTP\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0, informational": b"HTTP/2.0 103 Hints\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", BAD_HEADS.values(), ids=BAD_HEADS)
def test_a_head_that_breaks_the_rules(answer: bytes) -> None:
    http = exchange()
    with pytest.raises(httpx.RemoteProtocolError):
        while not http.feed(answer):
            answer = b""


LONGEST = OK + b"X: " + b"x" * (256 * 1024 - len(OK) - 7) + b"\r\n\r\n"
HINT = b"HTTP/1.1 103 Hints\r\n\r\n"


@pytest.mark.parametrize("size", [4_099, 65_536, 300_000])
@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        (LONGEST, True),
        (LONGEST.replace(b"X: ", b"X: x"), False),
        (HINT + LONGEST[: -len(HINT) - 4] + b"\r\n\r\n", True),
        (HINT + LONGEST[: -len(HINT) - 3] + b"\r\n\r\n", False),
    ],
    ids=["the longest", "a byte more", "with an informational one", "with one, a byte more"],
)
def test_the_limit_of_a_head_holds_to_the_byte(answer: bytes, fits: bool, size: int) -> None:
    http = exchange()
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    pieces[-1] += b"body"
    if fits:
        assert [http.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert http.rest == b"body"
        return
    with pytest.raises(httpx.RemoteProtocolError, match="over 262144 bytes"):
        for piece in pieces:
            assert not http.feed(piece)


def sent(http: Http1) -> bytes:
    return b"".join(http.request)


@pytest.mark.parametrize("size", [2, 65_536, 65_537, 200_000])
def test_the_request(size: int) -> None:
    asked = httpx.Request("POST", "http://server:1/a/b?c", headers={"X-Y": "z"}, content=b"x" * size)
    head, _, body = sent(Http1(asked)).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /a/b?c HTTP/1.1",
        b"Host: server:1",
        *[b"%b: %b" % pair for pair in asked.headers.raw[1:]],
    ]
    assert body == b"x" * size


def test_a_request_to_a_proxy() -> None:
    asked = httpx.Request("GET", "http://server:1/a")
    to_proxy = Http1(asked, target=b"http://server:1/a", more_headers=[(b"Proxy-Authorization", b"x")])
    assert sent(to_proxy).startswith(b"GET http://server:1/a HTTP/1.1\r\nHost: server:1\r\n")
    assert b"\r\nProxy-Authorization: x\r\n" in sent(
        Http1(asked, more_headers=[(b"Proxy-Authorization", b"x")])
    )


@pytest.mark.parametrize("value", ["a\r\nb", "a\nHost: other"])
def test_a_header_that_breaks_the_line_is_not_sent(value: str) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        Http1(httpx.Request("GET", "http://server", headers={"X": value}))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=12),
    st.lists(st.integers(0, 900), max_size=8),
)
def test_as_h11_reads_it(chunks: list[bytes], cuts: list[int]) -> None:
    answer = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(it), it) for it in chunks) + b"0\r\n\r\n"
    theirs = h11.Connection(h11.CLIENT)
    theirs.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    theirs.send(h11.EndOfMessage())
    theirs.receive_data(answer)
    payload = b""
    while not isinstance(event := theirs.next_event(), h11.EndOfMessage):
        payload += bytes(event.data) if isinstance(event, h11.Data) else b""
    assert read(answer, cuts) == (200, payload, True, True)
