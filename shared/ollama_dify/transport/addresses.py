"""Connecting to the first of a host's addresses that answers ("happy eyeballs", RFC 8305).

An address that does not answer delays the next one by only 0.25 seconds. No threads; all sockets except the
connected one are closed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import itertools
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

__all__ = ["Resolver", "connect", "resolve", "resolve_async", "within", "writable", "writable_async"]

T = TypeVar("T")
Address = tuple[int, int, int, str, Any]  # as of socket.getaddrinfo
Resolver = Callable[[str, int, float | None], Awaitable[Sequence[Address]]]
Writable = Callable[[list[socket.socket], float | None], Awaitable[list[socket.socket]]]

STAGGER_S = 0.25
_OPTIONS = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), seconds)
    for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0))


def in_order(found: Sequence[Address]) -> deque[Address]:
    """The resolver's order, alternating IPv6 and IPv4, so that a dead family costs one attempt."""
    turns = {row[0]: itertools.count() for row in found}
    return deque(sorted(found, key=lambda row: next(turns[row[0]])))


async def connect(
    found: Sequence[Address], made: list[socket.socket], left: Callable[..., float | None], writable: Writable
) -> socket.socket:
    """A connected, non-blocking socket.

    made: holds each socket from its creation, at the end only this one; the caller closes what is in it.
    left: as of `countdown`. Raises TimeoutError, or the OSError of the last attempt.
    """
    waiting = in_order(found)
    under_way: list[socket.socket] = []
    error = OSError("the host has no address")
    while waiting or under_way:
        if waiting:
            family, kind, proto, _, address = waiting.popleft()
            try:
                made.append(socket.socket(family, kind, proto))
                made[-1].setblocking(False)
                _check(made[-1].connect_ex(address))
                under_way.append(made[-1])
            except OSError as failed:
                error = failed
                continue
        for sock in await writable(under_way, left(STAGGER_S if waiting else None)):
            under_way.remove(sock)
            try:
                _check(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            except OSError as failed:
                error = failed
                continue
            for other in made:
                if other is not sock:
                    other.close()
            made[:] = [sock]
            for option in _OPTIONS:
                sock.setsockopt(*option)
            return sock
    raise error


def _check(code: int) -> None:
    if code not in _UNDER_WAY:
        raise OSError(code, os.strerror(code))


async def writable(sockets: list[socket.socket], limit_s: float | None) -> list[socket.socket]:
    """The sockets that connected or failed; blocks until there is at least one."""
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            selector.register(sock, selectors.EVENT_WRITE, sock)
        return [key.data for key, _ in selector.select(limit_s)]


async def writable_async(sockets: list[socket.socket], limit_s: float | None) -> list[socket.socket]:
    """The async twin of `writable`."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    watched: list[socket.socket] = []
    try:
        for sock in sockets:
            loop.add_writer(sock, woken.set)
            watched.append(sock)
        with contextlib.suppress(TimeoutError):
            await within(woken.wait(), limit_s)
    except NotImplementedError:  # an event loop of Windows
        await asyncio.sleep(0.01)
    finally:
        for sock in watched:
            loop.remove_writer(sock)
    return await writable(sockets, 0.0)


async def resolve(host: str, port: int, limit_s: float | None) -> Sequence[Address]:
    """The addresses of a host. Raises TimeoutError, or what `socket.getaddrinfo` raises."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    if _is_address(host):
        return look_up()
    found: concurrent.futures.Future[Sequence[Address]] = concurrent.futures.Future()

    def work() -> None:
        try:
            found.set_result(look_up())
        except Exception as error:
            found.set_exception(error)

    # The system's resolver has no timeout; a daemon thread that hangs in it blocks nothing.
    threading.Thread(target=work, name="ollama-dify-resolver", daemon=True).start()
    try:
        return found.result(limit_s)
    except concurrent.futures.TimeoutError:
        raise TimeoutError("the look-up of the host takes too long") from None


async def resolve_async(host: str, port: int, limit_s: float | None) -> Sequence[Address]:
    """The async twin of `resolve`."""
    if _is_address(host):
        return await resolve(host, port, limit_s)
    loop = asyncio.get_running_loop()
    return await within(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), limit_s)


def _is_address(host: str) -> bool:
    """Whether the host is an IP address, so that no name is looked up."""
    return ":" in host or host.replace(".", "").isdigit()


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
