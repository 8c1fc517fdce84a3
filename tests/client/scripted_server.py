"""A network whose server is a function: no sockets, no waiting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from ollama_dify import EmbeddingSettings, OllamaError
from ollama_dify.client.embed import embed
from ollama_dify.client.retry import RetryBudget
from ollama_dify.client.session import ModelCache, Session
from ollama_dify.transport.network import run
from ollama_dify.wire.requests import WireRequest
from ollama_dify.wire.server_errors import error_from_response

TOO_LONG = "the input length exceeds the context length"
NAN = "embedding contains NaN or Inf values"
END_OF_FILE = 'do embedding request: Post "http://127.0.0.1:41523/embedding": EOF'
STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error"
)

Body = dict[str, Any]
Handler = Callable[[list[str], Body], Any]


def vector_of(text: str) -> list[float]:
    """What the scripted server makes of a text: a unit vector that tells texts apart."""
    angle = 1.0 + hash_of(text)
    return [math.cos(angle), math.sin(angle), 0.0]


def hash_of(text: str) -> float:
    return sum(ord(char) * (place + 1) for place, char in enumerate(text)) % 9973 / 9973


def good(texts: Sequence[str]) -> Body:
    return {"model": "m", "embeddings": [vector_of(text) for text in texts], "prompt_eval_count": len(texts)}


def refused(status: int, text: str) -> OllamaError:
    body = orjson.dumps({"error": text})
    return error_from_response(status, {}, body, url="http://server", model="m", now_s=0.0)


class Server:
    """A `Network`: `handle` answers a request's texts with a body to send, or raises."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.asked: list[list[str]] = []
        self.bodies: list[Body] = []
        self.slept = 0

    async def send(self, request: WireRequest, limit: int = 0) -> bytes:
        body = dict(request.body or {})
        if "input" not in body:
            return b'{"models":[]}'
        self.asked.append(body["input"])
        self.bodies.append(body)
        answer = self.handle(body["input"], body)
        return answer if isinstance(answer, bytes) else orjson.dumps(answer)

    async def sleep(self, seconds: float) -> None:
        self.slept += 1

    async def gather(self, jobs: Sequence[Callable[[], Any]], limit: int) -> list[Any]:
        return [await job() for job in jobs]

    def session(self, settings: EmbeddingSettings) -> Session:
        network: Any = self  # nothing is streamed, fetched or computed
        return Session(settings, network, ModelCache(), RetryBudget())

    def embed(self, texts: Sequence[str], *, progress: Any = None, kind: Any = None, **fields: Any) -> Any:
        skip_failed = fields.pop("skip_failed", False)
        settings = EmbeddingSettings(**{"model": "m", **fields})
        embedding = embed(
            self.session(settings), texts, progress=progress, kind=kind, skip_failed=skip_failed
        )
        return run(embedding)
