"""The stand-in server without a compiler: the same answers as `stand_in.c`, from asyncio.

It is slower than a client that is near the floor, so a stream arrives in smaller reads and costs the client
more per token: ratios stay usable, figures do not compare with those of the C server.
"""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_SYLLABLES = (
    " sky",
    " is",
    " blue",
    ",",
    " be",
    "cause",
    " light",
    " of",
    " short",
    " wave",
    ".",
    "\n",
    " näm",
)
_END = {"done": True, "done_reason": "stop", "total_duration": 5191566416, "prompt_eval_count": 26}
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class StandIn:
    """The answers, shaped by `/_set`."""

    def __init__(self) -> None:
        self.shape = {"tokens": 16, "pace_us": 0, "dimension": 768}
        self.counts = dict.fromkeys(("opened", "open", "requests", "chat", "embed", "other"), 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known = False
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                length = 0
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
                body = await reader.readexactly(length)
                if not known and not path.startswith("/_"):
                    known = True
                    self.counts["opened"] += 1
                    self.counts["open"] += 1
                await self._answer(path, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.counts["open"] -= known
            writer.close()

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path.startswith("/_"):
            if path.startswith("/_set"):
                self.shape |= {name: int(value) for name, value in parse_qsl(urlsplit(path).query)}
                self.counts |= {name: 0 for name in self.counts if name != "open"}
            return _whole(writer, self.counts)
        self.counts["requests"] += 1
        kind = {"/api/chat": "chat", "/api/generate": "chat", "/api/embed": "embed"}.get(path, "other")
        self.counts[kind] += 1
        if kind == "chat":
            return await self._chat(
                path.endswith("generate"), b'"stream":false' in body.replace(b": ", b":"), writer
            )
        if kind == "embed":
            return self._embed(json.loads(body)["input"], writer)
        if path == "/api/tags":
            row = {"name": "bench:latest", "digest": "7" * 64, "size": 1, "details": {"family": "llama"}}
            return _whole(writer, {"models": [row]})
        if path == "/api/show":
            return _whole(writer, {"capabilities": ["completion", "tools", "vision"], "model_info": {}})
        return _whole(writer, {"version": "0.20.0"})

    async def _chat(self, generate: bool, whole: bool, writer: asyncio.StreamWriter) -> None:
        def line(text: str, **values: Any) -> dict[str, Any]:
            said = {"response": text} if generate else {"message": {"role": "assistant", "content": text}}
            return {"model": "bench", "created_at": "2026-01-02T03:04:05.123456789Z", **said, **values}

        words = [_SYLLABLES[i % len(_SYLLABLES)] for i in range(self.shape["tokens"])]
        end = {**_END, "eval_count": len(words)}
        if whole:
            return _whole(writer, line("".join(words), **end))
        writer.write(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for index, said in enumerate([*words, ""]):
            last = index == len(words)
            if self.shape["pace_us"] and not last:
                await asyncio.sleep(self.shape["pace_us"] / 1e6)
            data = (
                json.dumps(line(said, **(end if last else {"done": False})), ensure_ascii=False).encode()
                + b"\n"
            )
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return None

    def _embed(self, texts: list[str] | str, writer: asyncio.StreamWriter) -> None:
        random = Random(7)
        vector = [round(random.gauss(0, 0.04), 8) for _ in range(self.shape["dimension"])]
        count = len(texts) if isinstance(texts, list) else 1
        _whole(writer, {"model": "bench", "embeddings": [vector] * count, "prompt_eval_count": 8 * count})


def _whole(writer: asyncio.StreamWriter, answer: Any) -> None:
    data = json.dumps(answer).encode()
    writer.write(_HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data)


async def main() -> None:
    server = await asyncio.start_server(StandIn().serve, "127.0.0.1", 0, limit=2**26)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
