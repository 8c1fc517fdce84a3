"""The simulated server: starts, records, hands requests to the routes, stops."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import TracebackType
from typing import Any

from .connection import Connection
from .state import ServerState


class SimulatedOllama(ServerState):
    """An Ollama server without a model: the protocol is real, the answers are made by rule.

    `models` are the installed ones (default: llama3.2, llava, qwen3, gemma3, nomic-embed-text, all-minilm);
    `version` selects that server's behaviour (before 0.30 or since). `num_parallel`, `max_queue`,
    `max_loaded_models` and `context_length` are OLLAMA_NUM_PARALLEL, OLLAMA_MAX_QUEUE,
    OLLAMA_MAX_LOADED_MODELS and OLLAMA_CONTEXT_LENGTH. `answer` replaces the rules for requests without a
    scripted reply; returning None falls back to them.

    As a context manager it serves from a thread with its own loop; `serve_forever()` runs in the caller's.
    """

    _server: asyncio.Server | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """`http://host:port` of the running server."""
        host, port = self.address
        shown = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)
        return f"http://{shown}:{port}"

    def __enter__(self) -> SimulatedOllama:
        started = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(self.start())
            except BaseException as error:
                failure.append(error)
                loop.close()
                started.set()
                return
            started.set()
            loop.run_forever()
            loop.run_until_complete(self.stop())
            loop.close()

        self._thread = threading.Thread(target=run, name="simulated-ollama", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            raise failure[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and close every connection."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None

    async def start(self) -> None:
        """Listen, in the running loop."""
        loop = asyncio.get_running_loop()
        host, port = self.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = await loop.create_server(
            lambda: Connection(self), host, port, family=family, backlog=2048, reuse_address=True
        )
        self._loop = loop
        self.address = (host, self._server.sockets[0].getsockname()[1])

    async def serve_forever(self) -> None:
        """Listen until cancelled; `start()` first to learn the address before serving."""
        if self._server is None:
            await self.start()
        try:
            await asyncio.Event().wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in list(self._open):
            transport.abort()
        pending = [
            task for task in asyncio.all_tasks() if task is not asyncio.current_task() and _is_ours(task)
        ]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await asyncio.sleep(0)  # the transports tell their protocols of the end in the next round


def _is_ours(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "").startswith("Connection.")
