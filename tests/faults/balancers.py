"""nginx and HAProxy as processes on loopback, from a configuration's text; and the files of `deploy/`."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

__all__ = ["BINARIES", "balanced", "free_port", "running"]

Balancer = Literal["nginx", "haproxy"]
BINARIES = {name: shutil.which(name) or shutil.which(f"/usr/sbin/{name}") for name in ("nginx", "haproxy")}
DEPLOY = Path(__file__).parents[2] / "deploy"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(name: Balancer, config: str, port: int, folder: Path) -> Iterator[str]:
    """The balancer's address, once it listens on the port that its configuration names."""
    binary = BINARIES[name]
    if binary is None:
        pytest.skip(f"{name} is not installed (Debian: apt install {name})")
    file = folder / f"{name}.conf"
    file.write_text(config)
    log = folder / f"{name}.log"
    command = [binary, "-f", str(file)]
    if name == "nginx":
        command = [binary, "-p", str(folder), "-c", str(file), "-e", str(log), "-g", "daemon off;"]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written)
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until and process.poll() is None:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        else:
            pytest.fail(f"{name} did not start: {log.read_text()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def balanced(name: Balancer, urls: Sequence[str], folder: Path) -> Iterator[str]:
    """The balancer of `deploy/` in front of these servers: only addresses and folders are changed."""
    port = free_port()
    text = (DEPLOY / ("nginx.conf" if name == "nginx" else "haproxy.cfg")).read_text("utf-8")
    for number, url in enumerate(urls, 1):
        text, changed = re.subn(rf"\bollama-{number}:11434\b", url.removeprefix("http://"), text)
        assert changed == 1
    if name == "nginx":
        places = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi"))
        places += f"uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;"
        text = text.replace("listen 11434;", f"listen 127.0.0.1:{port};").replace(
            "/tmp/nginx.pid", f"{folder}/pid"
        )
        text = text.replace("access_log off;", f"access_log off; {places}")
    else:
        text = text.replace("bind :11434", f"bind 127.0.0.1:{port}")
    with running(name, text, port, folder) as url:
        yield url
