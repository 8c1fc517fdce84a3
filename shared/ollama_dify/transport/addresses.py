"""Connecting to the first of a host's addresses that answers ("happy eyeballs", RFC 8305).

An address that is silent holds up the next one by a quarter of a second only. No threads; every socket
but the winner's is closed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from itertools import chain, zip_longest
from typing import Any, TypeVar

__all__ = ["Address", "connect", "connect_async", "in_order", "resolved_async", "within"]

T = TypeVar("T")
Address = tuple[int, int, int, str, Any]  # as of socket.getaddrinfo

STAGGER_S = 0.25
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0))


def in_order(found: Sequence[Address]) -> deque[Address]:
    """The resolver's order, with the families in turn, so that a dead one costs one attempt."""
    families = dict.fromkeys(row[0] for row in found)
    rows = zip_longest(*([row for row in found if row[0] == family] for family in families))
    return deque(row for row in chain.from_iterable(rows) if row is not None)


def connect(
    found: Sequence[Address],
    made: list[socket.socket],
    limit_s: float | None,
    *,
    stagger_s: float = STAGGER_S,
) -> socket.socket:
    """A connected socket. made: where each socket is put at once; the caller closes those it has no use for.

    Raises TimeoutError, or the OSError of the last attempt.
    """
    until = None if limit_s is None else time.monotonic() + limit_s
    waiting = in_order(found)
    error = OSError("the host has no address")
    with selectors.DefaultSelector() as under_way:
        while waiting or under_way.get_map():
            if waiting:
                family, kind, proto, _, address = waiting.popleft()
                try:
                    made.append(socket.socket(family, kind, proto))
                    made[-1].setblocking(False)
                    _check(made[-1].connect_ex(address))
                    under_way.register(made[-1], selectors.EVENT_WRITE, made[-1])
                except OSError as failed:
                    error = failed
                    continue
            for key, _ in under_way.select(_pause(until, stagger_s if waiting else None)):
                sock: socket.socket = key.data
                under_way.unregister(sock)
                try:
                    _check(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                    return sock
                except OSError as failed:
                    error = failed
    raise error


async def connect_async(
    found: Sequence[Address], limit_s: float | None, *, stagger_s: float = STAGGER_S
) -> socket.socket:
    """The async twin of `connect`; asyncio's own way loses the socket when cancelled at the wrong moment."""
    loop = asyncio.get_running_loop()
    until = None if limit_s is None else time.monotonic() + limit_s
    waiting = in_order(found)
    error: BaseException = OSError("the host has no address")
    tasks: list[asyncio.Task[socket.socket]] = []
    under_way: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or under_way:
            if waiting:
                tasks.append(loop.create_task(_attempt(waiting.popleft())))
                under_way.add(tasks[-1])
            done, under_way = await asyncio.wait(
                under_way,
                timeout=_pause(until, stagger_s if waiting else None),
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                failed = task.exception()
                if failed is None:
                    tasks.remove(task)
                    return task.result()
                error = failed
        raise error
    finally:
        for task in tasks:
            task.cancel()
            task.add_done_callback(_close_late)


async def _attempt(address: Address) -> socket.socket:
    family, kind, proto, _, place = address
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, place)
        return sock
    except BaseException:
        sock.close()
        raise


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """An attempt that was not needed."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _check(code: int) -> None:
    if code not in _UNDER_WAY:
        raise OSError(code, os.strerror(code))


def _pause(until: float | None, stagger_s: float | None) -> float | None:
    """How long to wait for the attempts under way; raises TimeoutError when no time is left."""
    if until is None:
        return stagger_s
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("no address answered in time")
    return left if stagger_s is None else min(left, stagger_s)


async def resolved_async(host: str, port: int, limit_s: float | None) -> Sequence[Address]:
    """`socket.getaddrinfo` off the event loop, which an IP address does not need."""
    kind = socket.SOCK_STREAM
    try:
        return socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)
    except OSError:
        loop = asyncio.get_running_loop()
        return await within(loop.getaddrinfo(host, port, type=kind), limit_s)


async def within(work: Coroutine[Any, Any, T], limit_s: float | None) -> T:
    """Await `work`; raises TimeoutError. asyncio.wait_for loses cancellations before Python 3.12."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=limit_s)
        if not done:
            raise TimeoutError("not done in time")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
