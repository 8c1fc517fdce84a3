"""Outputs that the documentation shows, made anew; `python -m tests.docs.samples` writes them into the pages.

A page marks each with a comment above its block: `<!-- sample: NAME -->`, in the language of the page.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import socket
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from ollama_dify import ChatSettings, EmbeddingSettings, Image, OllamaClient, Timeouts, load_dify_app, user
from ollama_dify.cli import main
from ollama_dify.doctor import diagnose
from ollama_dify.language import current_language
from ollama_dify.language import language as in_language
from ollama_dify.testing import Fault, Reply, SimulatedOllama
from tests.doctor.worlds import DOCKER, MadeUp

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARKED = re.compile(r"(<!-- sample: ([\w-]+) -->\n```\w*\n)(.*?)(?=```\n)", re.DOTALL)
HOST = "http://host.docker.internal:11434"
PNG = DOCS.parent / "tests" / "data" / "images" / "png_1024x768.png"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def doctor(server: SimulatedOllama, *, base_url: str, is_found: bool = True, load: bool = False) -> str:
    """The doctor in a container whose host answers, or does not."""
    port = int(server.base_url.rpartition(":")[2])
    made_up = MadeUp(files=DOCKER)
    if is_found:
        made_up.names = {"host.docker.internal": ["192.168.65.254"]}
        made_up.ports = {("192.168.65.254", 11434): port}
    settings = ChatSettings(model="llava", base_url=base_url)
    report = str(diagnose(settings, world=made_up.world(), load=load))
    return re.sub(r"\d+ ms", "1 ms", re.sub(r"\d+\.\d (?=s\b|秒)", "0.8 ", report))


def command(server: SimulatedOllama, line: str) -> str:
    """A command and what it prints, in 100 columns, on a machine that is no container."""
    port = int(server.base_url.rpartition(":")[2])
    world = MadeUp(ports={("127.0.0.1", port): port}).world()
    environ = {"OLLAMA_HOST": server.base_url, "OLLAMA_DIFY_LANG": current_language(), "COLUMNS": "100"}
    said = io.StringIO()
    with TemporaryDirectory() as folder, patch.dict(os.environ, environ), redirect_stdout(said):
        more = ["--index-dir", folder] if line == "demo" else []
        with (
            patch("ollama_dify.doctor.World", lambda: world),
            patch("ollama_dify.container.container_kind", lambda: None),
        ):
            main([*shlex.split(line), *more])
        text = said.getvalue().replace(folder, ".demo").replace(f":{port}", ":11434")
    text = re.sub(r"\d+ ms", "1 ms", re.sub(r"\d+\.\d (s\b|秒)", r"0.8 \1", text))
    return f"$ ollama-dify {line}\n{text}"


def refused(server: SimulatedOllama) -> None:
    """The guide's first error: a program in a container, Ollama outside it."""
    port = free_port()
    with patch("ollama_dify.container.container_kind", lambda: "docker"):
        try:
            chat(server, base_url=f"http://localhost:{port}", max_retries=0)
        except Exception as error:
            error.args = (str(error).replace(str(port), "11434"),)
            raise type(error)(error.args[0]) from None


def chat(server: SimulatedOllama, *content: Any, reply: Reply | None = None, **values: Any) -> None:
    if reply is not None:
        server.reply(reply, times=None)
    with OllamaClient(ChatSettings(**{"model": "llava", "base_url": server.base_url, **values})) as client:
        client.chat([user(*(content or ("Hello!",)))])


def fault(server: SimulatedOllama, fault: Fault, **values: Any) -> None:
    server.fault(fault, times=None)
    chat(server, **values)


def embed(server: SimulatedOllama) -> None:
    server.reply(Reply(raw=b'{"model":"m","embeddings":[[0,0]]}'), path="/api/embed", times=None)
    settings = EmbeddingSettings(model="nomic-embed-text", base_url=server.base_url)
    with OllamaClient(settings) as client:
        client.embed(["one text"])


ERRORS: Mapping[str, Callable[[SimulatedOllama], Any]] = {
    "ConfigurationError": partial(chat, tempertur=0),
    "DifyAppError": lambda server: load_dify_app("kind: app"),
    "UnsupportedContentError": lambda server: chat(server, Image.from_bytes(b"no image")),
    "ConnectionFailedError": refused,
    "RequestTimeoutError": partial(fault, fault=Fault("stall"), timeout=Timeouts(answer=0.2), max_retries=0),
    "AuthenticationError": partial(chat, reply=Reply(status=401, error="unauthorized")),
    "PermissionDeniedError": partial(fault, fault=Fault("status", status=403, data=b"")),
    "InvalidRequestError": partial(chat, reply=Reply(status=400, error="invalid duration")),
    "ContextOverflowError": lambda server: chat(server, "hello " * 200, context_size=64),
    "CapabilityError": lambda server: chat(server, Image.from_path(PNG), model="llama3.2"),
    "ModelNotFoundError": partial(chat, model="lava"),
    "RateLimitError": partial(chat, reply=Reply(status=429, error="too many requests"), max_retries=0),
    "ServerBusyError": partial(chat, reply=Reply(status=503, error="server busy"), max_retries=0),
    "ServerError": partial(
        chat, reply=Reply(status=500, error="model requires more system memory (5.9 GiB) than is available")
    ),
    "ProtocolError": partial(fault, fault=Fault("status", status=200, data=b"<html>nginx</html>")),
    "IncompleteResponseError": partial(chat, reply=Reply("The planets are Mer", done=False)),
    "EmptyResponseError": partial(fault, fault=Fault("status", status=200, data=b"")),
    "EmbeddingError": embed,
}


def error_text(provoke: Callable[[SimulatedOllama], Any], server: SimulatedOllama) -> str:
    """What a traceback ends with."""
    try:
        provoke(server)
    except Exception as error:
        kind = type(error)
        return f"{kind.__module__.partition('.')[0]}.{kind.__name__}: {error}"
    raise AssertionError(f"{provoke} raised nothing")


COMMANDS = {
    "version": "--version",
    "check": "doctor --model llava --load",
    "form": "form llava",
    "form-embedding": "form nomic-embed-text",
    "models": "models",
    "pull": "pull qwen3",
    "chat": "chat llava 'Which planets does the sun have?'",
    "embed": "embed nomic-embed-text 'A text to embed'",
    "app": "app examples/support.yml",
    "demo": "demo",
    "demo-help": "demo --help",
    "simulate-help": "simulate --help",
}

SAMPLES: Mapping[str, Callable[[SimulatedOllama], str]] = {
    "doctor": partial(doctor, base_url="http://localhost:11434"),
    "doctor-closed": partial(doctor, base_url="http://localhost:11434", is_found=False),
    "doctor-fixed": partial(doctor, base_url=HOST, load=True),
    **{f"command-{name}": partial(command, line=line) for name, line in COMMANDS.items()},
    **{name: partial(error_text, provoke) for name, provoke in ERRORS.items()},
}


def sample(name: str, language: str) -> str:
    with SimulatedOllama() as server, in_language(language):
        port = server.base_url.rpartition(":")[2]
        text = re.sub(rf"(127\.0\.0\.1|localhost):{port}", "localhost:11434", SAMPLES[name](server))
        return text.rstrip() + "\n"


def refreshed(page: Path) -> str:
    """The page with each of its samples made anew."""
    language = next((name for name in ("ja", "zh") if page.name.endswith(f".{name}.md")), "en")
    return MARKED.sub(lambda found: found[1] + sample(found[2], language), page.read_text("utf-8"))


if __name__ == "__main__":
    from tools import make_images

    for name in make_images.LANGUAGES:
        make_images.doctor(name)
    for page in sorted(DOCS.rglob("*.md")):
        page.write_text(refreshed(page), "utf-8")
