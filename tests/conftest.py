"""What all tests share: the simulated server's fixture, a clean environment, no network but this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

pytest_plugins = ["ollama_dify.testing.plugin"]
_foreign: list[str] = []

# Machines differ: no example has a time limit.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what would leave this machine, whoever asks: sockets, event loops, other libraries."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(str(address[0])):
            _foreign.append(f"{event} {address[0]}:{address[1]}")
            raise PermissionError(f"tests contact this machine only, not {address}")
    elif event == "socket.getaddrinfo" and _is_no_name(arguments[0]):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    elif event == "socket.getaddrinfo" and not _is_address(arguments[0]) and arguments[0] != "localhost":
        _foreign.append(f"{event} {arguments[0]}")
        raise PermissionError(f"tests look up no names, such as {arguments[0]!r}")


def _is_no_name(host: str | bytes | None) -> bool:
    """Whether no resolver could know it: a name under .invalid."""
    text = host.decode() if isinstance(host, bytes) else host or ""
    return text.endswith(".invalid")


def _is_local(host: str) -> bool:
    return host in ("localhost", "") or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str | bytes | None) -> bool:
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host or "::")
    except ValueError:
        return False
    return True


if "OLLAMA_LIVE_URL" not in os.environ:
    sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def only_this_machine() -> Iterator[None]:
    """Fails a test that tried to contact another address, also where it swallowed the error."""
    _foreign.clear()
    yield
    assert not _foreign, f"contacted another machine: {_foreign}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test depends on this machine's Ollama, proxies or vocabulary cache."""
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    cache: Path = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
