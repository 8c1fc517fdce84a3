"""Bad things a server may send and a caller may give: tables of (name, input, what must come of it)."""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from ollama_dify import ChatSettings, EmbeddingSettings, Message, OllamaClient, user

from .server import LAST, End, Step, chunk, head, last_line, line, whole


@dataclass(frozen=True)
class BadAnswer:
    """ask: "stream", "chat", "embed", "tags", "show", "version". steps: what is sent.

    says: what a correct answer comes to, None where only an error will do.
    """

    name: str
    ask: str
    steps: Callable[[], Iterable[Step]]
    says: Any = None


def _stream(*pieces: bytes) -> Callable[[], Iterable[Step]]:
    """A properly framed 200 stream of these pieces."""

    def steps() -> Iterable[Step]:
        yield head(Content_Type="application/x-ndjson")
        for piece in pieces:
            yield chunk(piece)
        yield LAST

    return steps


def _raw(*steps: Step) -> Callable[[], Iterable[Step]]:
    return lambda: steps


def _body(body: bytes, **headers: str) -> Callable[[], Iterable[Step]]:
    return lambda: [whole(body, 200, **headers)]


OK = b"HTTP/1.1 200 OK\r\n"
HEL, LO, DONE = line("Hel"), line("lo"), last_line()
GOOD = HEL + LO + DONE
ALL = json.loads(DONE)


def _message(**changes: Any) -> bytes:
    """A last line in which parts are replaced."""
    return json.dumps({**ALL, **changes}).encode() + b"\n"


def _with_text(raw: bytes) -> bytes:
    """A line whose content is this JSON, spliced in unchecked."""
    return line("@@").replace(b'"@@"', raw)


# What else a line may hold: tests/wire/test_streaming.py and test_responses.py, at every cut.
_TEXTS: Sequence[tuple[str, bytes, str | None]] = (
    ("an object over two lines", b'{"model":\n"m"}\n' + DONE, None),
    ("server-sent events", b"data: " + HEL + b"\ndata: [DONE]\n", None),
    ("overlong UTF-8", _with_text(b'"\xc0\xaf"') + DONE, None),
    ("a NUL escape", _with_text(rb'"a\u0000b"') + DONE, "a\0b"),
    ("a raw NUL", _with_text(b'"a\0b"') + DONE, None),
    ("raw control characters", _with_text(b'"a\x1b[31mb"') + DONE, None),
    ("cut JSON", HEL + b'{"model":"m","mess', None),
    ("error of 100 kB with CRLF and ANSI", json.dumps({"error": "\x1b[31mred\r\n" * 10_000}).encode(), None),
    ("JSON 200,000 deep", b'{"a":' * 200_000 + b"1" + b"}" * 200_000, None),
    ("unknown keys", GOOD.replace(b'"model": "m"', b'"new": {"a": [1]}, "model": "m"'), "Hello"),
    ("text after done", GOOD + LO, None),
    ("a line of 17 MB", b'{"model":"' + b"x" * 17_000_000, None),
    ("an empty body", b"", None),
)

_GRUESSE = json.dumps({"done": False, "message": {"content": "Grü"}}, ensure_ascii=False).encode() + b"\n"

# How else a body may be framed wrongly: tests/transport/test_http1.py.
_WIRE: Sequence[tuple[str, Callable[[], Iterable[Step]], str | None]] = (
    ("one byte per chunk", _stream(*(GOOD[i : i + 1] for i in range(len(GOOD)))), "Hello"),
    ("a character cut in two", _stream(_GRUESSE[:-5], _GRUESSE[-5:], DONE), "Grü"),
    ("Content-Type text/html", _body(GOOD, Content_Type="text/html"), "Hello"),
    ("Content-Type nonsense", _body(GOOD, Content_Type="\x7f;;=="), "Hello"),
    ("Content-Length too short", _raw(head(length=len(GOOD) - 20), GOOD, End.FIN), None),
    ("Content-Length too long", _raw(head(length=len(GOOD) + 20), GOOD, End.FIN), "Hello"),
    ("Content-Length text", _raw(OK + b"Content-Length: many\r\n\r\n", GOOD, End.FIN), None),
    ("Content-Length of 30 digits", _raw(OK + b"Content-Length: " + b"9" * 30, b"\r\n\r\n", End.FIN), None),
    ("HTTP/1.0", _raw(b"HTTP/1.0 200 OK\r\n\r\n", GOOD, End.FIN), "Hello"),
    ("HTTP/0.9", _raw(GOOD, End.FIN), None),
    ("HTTP/9.9", _raw(b"HTTP/9.9 200 OK\r\n\r\n", GOOD, End.FIN), None),
    ("status 999", _raw(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", End.FIN), None),
    ("status 0", _raw(b"HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n", End.FIN), None),
    ("status 204", _raw(b"HTTP/1.1 204 No Content\r\n\r\n"), None),
    ("status 206", _raw(whole(GOOD, 206)), "Hello"),
    (
        "status 101",
        _raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", End.FIN),
        None,
    ),
    ("a flood of 1xx", lambda: (b"HTTP/1.1 102 Processing\r\n\r\n" * 100 for _ in range(5000)), None),
    ("10,000 headers", _raw(OK + b"".join(b"X-%d: y\r\n" % i for i in range(10_000)) + b"\r\n"), None),
    ("a header of 1 MB", _raw(OK + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n"), None),
    ("a header without end", lambda: (b"X: " + b"y" * 10_000 for _ in range(5000)), None),
    ("a header with NUL", _raw(OK + b"X: a\0b\r\n\r\n", GOOD, End.FIN), None),
    ("a folded header", _raw(OK + b"X: a\r\n b\r\n\r\n", GOOD, End.FIN), "Hello"),
    (
        "2,000 cookies",
        _raw(
            OK
            + b"".join(b"Set-Cookie: a%d=b; Domain=x\r\n" % i for i in range(2000))
            + b"Content-Length: 2\r\n\r\n{}"
        ),
        None,
    ),
    ("gzip, said so", _body(gzip.compress(GOOD), Content_Encoding="gzip"), None),
    ("deflate, said so", _body(zlib.compress(GOOD), Content_Encoding="deflate"), None),
    ("br, said so", _body(b"\x0b\x02\x80", Content_Encoding="br"), None),
    ("an unknown encoding", _body(GOOD, Content_Encoding="x\u00e4y"), None),
    ("identity, said so", _body(GOOD, Content_Encoding="identity"), "Hello"),
    ("gzip without saying so", _body(gzip.compress(GOOD)), None),
    ("a chunk size of 20 digits", _raw(head(), b"f" * 20 + b"\r\n" + GOOD, End.FIN), "Hello"),
    ("chunks without end", _raw(head(), chunk(GOOD), End.FIN), "Hello"),
    (
        "endless trailers",
        lambda: [head(), chunk(GOOD), b"0\r\n", *(b"X: " + b"y" * 10_000 for _ in range(100)), End.FIN],
        "Hello",
    ),
    ("two answers to one request", _raw(whole(GOOD) + whole(GOOD)), "Hello"),
    ("TLS instead of HTTP", _raw(b"\x15\x03\x01\x00\x02\x02\x46", End.FIN), None),
    ("SSH instead of HTTP", _raw(b"SSH-2.0-OpenSSH_9.6\r\n", End.FIN), None),
    ("nothing but NULs", _raw(bytes(5000), End.FIN), None),
    ("an immediate end", _raw(End.FIN), None),
    ("an immediate reset", _raw(End.RST), None),
    ("a redirect without a place", _raw(whole(b"", 307)), None),
    ("a redirect to nonsense", _raw(whole(b"", 307, Location="http://[::1")), None),
    ("an error body of 1 MB", _raw(whole(b"x" * 1_000_000, 500)), None),
    ("an error body that stops", _raw(head(500, length=99), b'{"err', End.FIN), None),
    ("an error body of bytes", _raw(whole(bytes(range(256)), 400)), None),
    ("an error body 200,000 deep", _raw(whole(b"[" * 200_000, 400)), None),
    ("Retry-After nonsense", _raw(whole(b"{}", 400, Retry_After="soon")), None),
    ("Retry-After nan", _raw(whole(b"{}", 400, Retry_After="nan")), None),
    ("Retry-After 1e400", _raw(whole(b"{}", 400, Retry_After="1e400")), None),
)

_WHOLE: Sequence[tuple[str, bytes, str | None]] = (
    ("null", b"null", None),
    ("several lines", HEL + LO + DONE, None),
    ("not done", HEL, None),
    ("an error", b'{"error":"no"}', None),
    ("a list", b"[]", None),
    ("a byte order mark", b"\xef\xbb\xbf" + DONE, None),
    ("blanks around", b" \r\n" + _message(message={"content": "Hi"}) + b"\n", "Hi"),
    ("20 MB", b'{"model":"' + b"x" * 20_000_000 + b'"}', None),
    ("JSON 200,000 deep", b"[" * 200_000 + b"]" * 200_000, None),
    (
        "JSON 1,000 deep",
        json.dumps({**ALL, "x": 1}).encode().replace(b'"x": 1', b'"x": ' + b"[" * 1000 + b"]" * 1000),
        "",
    ),
)

# The others: tests/wire/test_vectors.py.
_VECTORS: Sequence[tuple[str, str]] = (
    ("null", "null"),
    ("true inside", '[[1,true],["1",2]]'),
    ("too large to square", "[[1e308,1e308],[1,2,3]]"),
    ("a number of 5,000 digits", "[[" + "9" * 5000 + ",1],[1,2]]"),
    ("deep", "[" * 5000 + "]" * 5000),
)

_LOOKUPS: Sequence[tuple[str, str, bytes, Any]] = (
    ("tags null", "tags", b"null", None),
    ("tags a list", "tags", b"[]", None),
    ("tags of numbers", "tags", b'{"models":[1]}', None),
    ("tags models null", "tags", b'{"models":null}', 0),
    ("tags of nulls", "tags", b'{"models":[{"name":null,"size":"x","details":5}]}', 1),
    ("version a number", "version", b'{"version":5}', None),
    ("version missing", "version", b"{}", None),
    ("show null", "show", b"null", None),
)

BAD_ANSWERS: Sequence[BadAnswer] = (
    *(BadAnswer(name, "stream", _stream(body), says) for name, body, says in _TEXTS),
    *(BadAnswer(name, "stream", steps, says) for name, steps, says in _WIRE),
    *(BadAnswer(f"whole: {name}", "chat", _body(body), says) for name, body, says in _WHOLE),
    *(
        BadAnswer(f"vectors: {name}", "embed", _body(f'{{"model":"m","embeddings":{vectors}}}'.encode()))
        for name, vectors in _VECTORS
    ),
    *(BadAnswer(name, ask, _body(body), says) for name, ask, body, says in _LOOKUPS),
)


def _settings(**values: Any) -> Callable[[str], Any]:
    return lambda url: ChatSettings(**{"model": "m", "base_url": url, **values})


def _chat(*said: Any, settings: dict[str, Any] | None = None, **call: Any) -> Callable[[str], Any]:
    def ask(url: str) -> Any:
        with OllamaClient(ChatSettings(**{"model": "m", "base_url": url, **(settings or {})})) as client:
            return client.chat([it if isinstance(it, Message) else user(it) for it in said], **call).text

    return ask


def _embed(texts: Any, **settings: Any) -> Callable[[str], Any]:
    def ask(url: str) -> Any:
        with OllamaClient(EmbeddingSettings(**{"model": "m", "base_url": url, **settings})) as client:
            return len(client.embed(texts).vectors)

    return ask


def _proxied(proxy: str) -> Callable[[str], Any]:
    def ask(url: str) -> Any:
        with patch.dict(os.environ, {"HTTP_PROXY": proxy, "http_proxy": proxy}):
            settings = ChatSettings(model="m", base_url="http://server.invalid", max_retries=0, timeout=3)
            with OllamaClient(settings) as client:
                return client.version()

    return ask


def _deep(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


class Bad:
    """Only an error of ours will do."""


class Fine:
    """Any result will do, as any error of ours."""


# name, what is done with the server's address, what it must come to: a value, Bad or Fine.
# Addresses: tests/test_address.py; the form and other settings: tests/settings.
BAD_CALLS: Sequence[tuple[str, Callable[[str], Any], Any]] = (
    ("a lone surrogate", _chat("a\ud800b"), Bad),
    ("a NUL", _chat("a\0b"), "Hello"),
    ("no messages", _chat(), Bad),
    ("an empty message", _chat(""), Fine),
    ("a prompt of 10 MB", _chat("x" * 10_000_000), "Hello"),
    ("control characters", _chat("\x1b[31m\r\n\x7f"), "Hello"),
    ("temperature NaN", _chat("hi", temperature=math.nan), Bad),
    ("temperature infinite", _chat("hi", temperature=math.inf), Bad),
    ("temperature text", _chat("hi", temperature="hot"), Bad),
    ("an unknown argument", _chat("hi", temprature=1), Bad),
    ("a tool choice without tools", _chat("hi", tool_choice="look"), Bad),
    ("a format 2,000 deep", _chat("hi", format={"a": _deep(2000)}), Bad),
    ("a format with a surrogate", _chat("hi", format={"a\ud800": 1}), Bad),
    ("options of a set", _chat("hi", options={"x_y": {1}}), Bad),
    ("options of bytes", _chat("hi", options={"x_y": b"z"}), Bad),
    ("options NaN", _chat("hi", options={"x_y": math.nan}), Bad),
    ("options of a huge number", _chat("hi", options={"x_y": 10**30}), Fine),
    ("num_predict over the bound", _chat("hi", num_predict=10_000_000), Bad),
    ("stop a number", _chat("hi", stop=5), Bad),
    ("a text for texts", _embed("hi"), Bad),
    ("no texts", _embed([]), 0),
    ("an empty text", _embed(["a", ""]), 2),
    ("an empty text, refused", _embed(["a", ""], on_empty="error"), Bad),
    ("a text that is None", _embed(["a", None]), Bad),
    ("a text of bytes", _embed([b"a"]), Bad),
    ("a text with a surrogate", _embed(["\udfff"]), Bad),
    ("a text of 10 MB", _embed(["x" * 10_000_000]), 1),
    ("batch_size 0", _embed(["a"], batch_size=0), Bad),
    ("model with a line break", _settings(model="m\n"), Bad),
    ("header with CRLF", _settings(headers={"X-A": "b\r\nX-C: d"}), Bad),
    ("header name with CRLF", _settings(headers={"X\r\nY": "b"}), Bad),
    ("header of another length", _settings(headers={"Content-Length": "5"}), Bad),
    ("header not ASCII", _settings(headers={"X-A": "ü"}), Bad),
    ("key with CRLF", _settings(api_key="sk-canary\r\nX: y"), Bad),
    ("key not ASCII", _settings(api_key="schlüssel"), Bad),
    ("HTTP_PROXY nonsense", _proxied("::::"), Bad),
    ("HTTP_PROXY ftp", _proxied("ftp://x"), Bad),
    ("HTTP_PROXY port", _proxied("http://127.0.0.1:99999"), Bad),
    ("HTTP_PROXY socks", _proxied("socks5://127.0.0.1:9"), Bad),
    ("HTTP_PROXY dead", _proxied("http://127.0.0.1:9"), Bad),
)
