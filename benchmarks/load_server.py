"""The fault server in a process of its own: it does not compete with the client for the interpreter."""

from __future__ import annotations

import asyncio
import importlib
import json
import multiprocessing
import urllib.request
from multiprocessing.connection import Connection

from tests.faults.server import CONTROL, Counts, Listener


def _process(name: str, channel: Connection) -> None:
    module, _, function = name.partition(":")

    async def serve() -> None:
        server, port = await Listener(getattr(importlib.import_module(module), function)).listen()
        channel.send(port)
        async with server:
            # The parent's end closes when it is done, or gone.
            await asyncio.to_thread(lambda: channel.poll(None))

    asyncio.run(serve())


class FaultProcess:
    """The server in a process; script: "module:function"."""

    def __init__(self, script: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._process = context.Process(target=_process, args=(script, theirs), daemon=True)
        self._theirs = theirs
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def counts(self) -> Counts:
        with urllib.request.urlopen(self.url + CONTROL, timeout=10) as answered:
            return Counts(**json.loads(answered.read()))

    def __enter__(self) -> FaultProcess:
        self._process.start()
        self._theirs.close()
        self.port = self._channel.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.join(5)
        self._process.close()
