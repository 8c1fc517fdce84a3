"""What a simulated server knows and counts: models, scripts, recorded requests, loaded models."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import h11
import orjson

from .faults import Fault, Predicate, RecordedRequest, Reply, Rule, matches
from .models import SimulatedModel, default_models, with_tag
from .runners import Runners

GENERATION = ("/api/chat", "/api/generate")
Answerer = Callable[[RecordedRequest], "Reply | str | None"]
Registry = Literal["known", "unreachable"]
_A = TypeVar("_A")


@dataclass(slots=True)
class ConnectionCounts:
    """TCP connections: open at this moment, and since the start."""

    open: int = 0
    total: int = 0


@dataclass(slots=True)
class Latency:
    """Seconds: before the first byte of any answer, between the chunks of a stream."""

    first_byte_s: float = 0.0
    chunk_s: float = 0.0


class ServerState:
    """What the routes read and change, and what tests script. The settings: see `SimulatedOllama`."""

    def __init__(
        self,
        models: Iterable[SimulatedModel] | None = None,
        *,
        version: str = "0.33.0",
        host: str = "127.0.0.1",
        port: int = 0,
        latency_s: float = 0.0,
        chunk_delay_s: float = 0.0,
        num_parallel: int | None = None,
        max_queue: int = 512,
        max_loaded_models: int = 3,
        context_length: int = 4096,
        keep_alive_s: float = 300.0,
        allowed_hosts: Sequence[str] = (),
        registry: Registry = "known",
        answer: Answerer | None = None,
    ) -> None:
        installed = default_models() if models is None else list(models)
        self.models: dict[str, SimulatedModel] = {model.full_name: model for model in installed}
        self.version = version
        self.requests: list[RecordedRequest] = []
        self.connections = ConnectionCounts()
        self.disconnects = 0
        self.latency = Latency(latency_s, chunk_delay_s)
        self.runners = Runners(num_parallel, max_queue, max_loaded_models, context_length)
        self.keep_alive_s = keep_alive_s
        self.allowed_hosts = frozenset(allowed_hosts)
        self.registry: Registry = registry
        self.answerer = answer
        self.address = (host, port)
        self._replies: list[Rule[Reply]] = []
        self._faults: list[Rule[Fault]] = []
        self._open: set[asyncio.Transport] = set()
        self._lock = threading.Lock()

    @property
    def is_modern(self) -> bool:
        """Whether this is a server with llama-server inside (0.30 and later)."""
        parts = self.version.split(".")
        return (int(parts[0]), int(parts[1])) >= (0, 30)

    @property
    def reloads(self) -> int:
        """How often a loaded model was loaded again because its load-time options changed."""
        return self.runners.reloads

    @property
    def loads(self) -> int:
        """How often a model was loaded, reloads included."""
        return self.runners.loads

    def reply(
        self,
        *replies: Reply | str,
        path: str | None = None,
        times: int | None = 1,
        when: Predicate | None = None,
    ) -> None:
        """Answer the next matching chat or generate requests (or those to `path`) with these, in this order.

        Each is used `times` times, None for ever; later calls queue behind earlier ones.
        """
        applies = matches(path, when, () if path else GENERATION)
        with self._lock:
            made = (Reply(one) if isinstance(one, str) else one for one in replies)
            self._replies.extend(Rule(reply, applies, times) for reply in made)

    def script(self, replies: Iterable[Reply | str]) -> None:
        """Answer the next chat and generate requests with these, one each."""
        self.reply(*replies)

    def fault(
        self,
        fault: Fault,
        *,
        times: int | None = 1,
        path: str | None = None,
        when: Predicate | None = None,
        share: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Let the next `times` matching requests (None: all) fail, or a random `share` of them."""
        chance = random.Random(seed)

        def strikes(request: RecordedRequest) -> bool:
            return (when is None or when(request)) and (share >= 1.0 or chance.random() < share)

        with self._lock:
            self._faults.append(Rule(fault, matches(path, strikes, ()), times))

    def reset_scripts(self) -> None:
        """Forget scripted replies and faults."""
        with self._lock:
            self._replies.clear()
            self._faults.clear()

    def reset(self) -> None:
        """Forget scripts, faults, recorded requests and loaded models."""
        self.reset_scripts()
        self.requests.clear()
        self.runners.loaded.clear()
        self.runners.loads = self.runners.reloads = self.disconnects = 0

    def find(self, name: str) -> SimulatedModel | None:
        """An installed model by the name a request gave, with or without tag and registry."""
        bare = name.removeprefix("registry.ollama.ai/").removeprefix("library/")
        wanted = with_tag(bare).lower()
        exact = self.models.get(with_tag(bare))
        return exact or next((model for key, model in self.models.items() if key.lower() == wanted), None)

    def pullable(self, name: str) -> SimulatedModel | None:
        """A model that /api/pull may install: any of the default ones."""
        return next((model for model in default_models() if model.full_name == with_tag(name)), None)

    def install(self, model: SimulatedModel) -> None:
        """Add a model or replace the one of that name."""
        self.models[model.full_name] = model

    def opened(self, connection: asyncio.Transport) -> int:
        """Number a new connection."""
        self._open.add(connection)
        self.connections.total += 1
        self.connections.open = len(self._open)
        return self.connections.total

    def closed(self, connection: asyncio.Transport, *, interrupted: bool) -> None:
        """Forget a connection; `interrupted` if it broke off during an answer."""
        self._open.discard(connection)
        self.connections.open = len(self._open)
        self.disconnects += interrupted

    def record(self, head: h11.Request, raw: bytes, connection: int) -> RecordedRequest:
        """Keep a request, its body parsed."""
        try:
            body: Any = orjson.loads(raw) if raw else None
        except orjson.JSONDecodeError:
            body = None
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        method, path = head.method.decode("ascii"), head.target.decode("latin-1")
        self.requests.append(RecordedRequest(method, path, headers, raw, body, connection))
        return self.requests[-1]

    def scripted(self, request: RecordedRequest) -> Reply | None:
        """The reply a test laid down for the request."""
        reply = self._take(self._replies, request)
        if reply is None and self.answerer is not None and request.path in GENERATION:
            made = self.answerer(request)
            return Reply(made) if isinstance(made, str) else made
        return reply

    def fault_for(self, request: RecordedRequest) -> Fault | None:
        """The fault that strikes the request."""
        return self._take(self._faults, request)

    def _take(self, rules: list[Rule[_A]], request: RecordedRequest) -> _A | None:
        with self._lock:
            for rule in rules:
                if rule.take(request):
                    if rule.left == 0:
                        rules.remove(rule)
                    return rule.action
        return None
