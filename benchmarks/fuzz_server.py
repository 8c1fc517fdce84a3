"""What a broken or hostile server may answer: a model's description, and HTTP itself."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import h11
import httpx
from tests.tokens.test_hostile_show import BASES, MORE, ODD
from tests.transport.test_http1 import ANSWERS, read

from ollama_dify import ChatSettings, OllamaClient, OllamaError, user

SHOWS = [
    json.dumps(
        {"model_info": {f"tokenizer.ggml.{name}": value for name, value in {**MORE, **base}.items()}}
    ).encode()
    for base in BASES.values()
]
HTTP = [bytes([place * 7 % 256]) + answer for place, (answer, _, _) in enumerate(ANSWERS.values())]


def fuzz_show(data: bytes) -> None:
    """A client whose server describes its model so: counts and `warmup` end with a count or an error of ours.

    The same bytes are the answer to the other requests too, so that renderings are as odd.
    """

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/tags":
            return httpx.Response(200, json={"models": [{"name": "m:latest"}]})
        if request.url.path == "/api/chat":
            rendered = data[:200].decode("utf-8", "replace")
            return httpx.Response(200, json={"_debug_info": {"rendered_template": rendered}})
        return httpx.Response(200, content=data)

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        client = OllamaClient(ChatSettings(model="m", max_retries=0, http_client=http))
        calls: list[Callable[[], Any]] = [
            lambda: client.warmup() and 1,
            lambda: client.count_tokens([user("Hello, 東京")]).tokens,
            lambda: client.counter().bound([user("Hello, 東京")]).tokens,
            lambda: client.counter().text("Hello, 東京").tokens,
        ]
        for call in calls:
            try:
                found = call()
            except OllamaError as error:
                str(error)
            else:
                assert found > 0, "a text without tokens"


def mutate_show(
    data: bytes, others: list[bytes], chance: random.Random, mutate: Callable[..., bytes]
) -> bytes:
    """Odd values somewhere in the description; sometimes other bytes."""
    try:
        show = json.loads(data)
    except (ValueError, RecursionError):
        show = None
    if not isinstance(show, dict) or not show or chance.random() < 0.1:
        return mutate(data, others, chance)
    for _ in range(1 + int(chance.expovariate(0.6))):
        holder: Any = show
        while True:
            key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            inner = holder[key]
            if not isinstance(inner, (dict, list)) or not inner or chance.random() < 0.2:
                break
            holder = inner
        if isinstance(holder, list) and chance.random() < 0.3:
            holder *= chance.choice([0, 2, 3])
        else:
            holder[key] = copy.deepcopy(chance.choice(ODD))
    return json.dumps(show).encode()


def fuzz_http(data: bytes) -> None:
    """The first byte chooses method and cut: the same answer however cut, and what h11 makes of it."""
    choice, answer = data[0] if data else 0, data[1:]
    method = ("POST", "HEAD")[choice % 8 == 7]
    size = 1 + choice // 2
    whole = _outcome(answer, [], method)
    assert _outcome(answer, list(range(size, len(answer), size)), method) == whole, "depends on how it is cut"
    if isinstance(whole, tuple):
        status, body, refused = _h11(answer, method)
        # h11 refuses what stands before an extension, and reads trailers as fields.
        assert whole[1].startswith(body) if refused else whole[1] == body, "h11 reads another body"
        assert whole[0] == status, "h11 reads another status"


def _outcome(answer: bytes, cuts: list[int], method: str) -> Any:
    """Status, body and whether it is complete; the error's name for what is refused."""
    try:
        return read(answer, cuts, method)[:3]
    except httpx.RemoteProtocolError as error:
        return type(error).__name__
    except IndexError:
        return "no complete head"


def _h11(answer: bytes, method: str) -> tuple[int, bytes, bool]:
    """Status and body as h11 alone reads them, and whether it refused the rest."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "server")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer)
    status, body, ended = 0, b"", False
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return status, body, True
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif event is h11.NEED_DATA and not ended:
            ended = True
            connection.receive_data(b"")
        elif not isinstance(event, h11.InformationalResponse):
            return status, body, False


HTTP_WORDS = [
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"HTTP/2.0 ", b"204", b"101", b"100 Continue\r\n\r\n", b"304"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 5, 5\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n"),
    *(b"Transfer-Encoding: gzip, chunked\r\n", b"Connection: close\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n"),
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b" ",
        b"\t",
        b";a=b",
        b"0x5",
        b"+5",
        b"-1",
        b"f" * 16,
        b"9" * 20,
        b"A:b\r\n",
    ),
]


def mutate_http(
    data: bytes, others: list[bytes], chance: random.Random, mutate: Callable[..., bytes]
) -> bytes:
    """HTTP's own words put in, else other bytes."""
    if chance.random() < 0.5:
        return mutate(data, others, chance)
    place, end = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
    return data[:place] + chance.choice(HTTP_WORDS) + data[place if chance.random() < 0.7 else end :]
