"""The command: what it prints, in a pipe and in narrow terminals, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ollama_dify import ChatSettings, ConnectionSettings, OllamaClient, OllamaError
from ollama_dify.cli import main
from ollama_dify.cli.commands import chat, doctor
from ollama_dify.terminal import Terminal, width
from ollama_dify.testing import Reply, SimulatedModel, SimulatedOllama

from ..doctor.worlds import DOCKER, MadeUp

IMAGE = Path(__file__).parents[1] / "data" / "images"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_DIFY_LANG", "LC_ALL", "LC_MESSAGES", "LANG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedOllama]:
    models = [
        SimulatedModel("llava", ("completion", "vision", "tools", "thinking")),
        SimulatedModel("nomic-embed-text", ("embedding",), dimensions=768),
    ]
    with SimulatedOllama(models) as running:
        yield running


DEAD = "http://127.0.0.1:9"

# arguments ({url}: the server's address), exit code, words of the output, words of the errors. What each
# command prints when all is well stands in docs/commands.md, which a test compares.
ROWS: dict[str, tuple[str, int, Sequence[str], Sequence[str]]] = {
    "help in Chinese": ("doctor --help --lang zh", 0, ["用法：", "选项:", "显示此帮助", "服务器地址"], []),
    "no command": ("", 2, [], ["wrong use", "are required: COMMAND", "--help"]),
    "an unknown command": ("--lang=ja nothing", 2, [], ["使い方", "'nothing' は選択できません"]),
    "no model": ("pull --lang=zh", 2, [], ["用法错误：缺少以下必需参数：MODEL"]),
    "no number": ("chat --lang=ja m --context-size x", 2, [], ["引数 --context-size", "int の値として"]),
    "no value": ("models --lang ja --base-url", 2, [], ["引数 --base-url", "値が 1 つ必要です"]),
    "a value too many": ("doctor --lang zh --load=3", 2, [], ["参数 --load", "不接受值 '3'"]),
    "an unknown option": ("models --lang zh --size", 2, [], ["无法识别的参数：--size"]),
    "an address that cannot be": ("models --base-url http://", 2, [], ["base_url"]),
    "nothing answers": (f"models --base-url {DEAD}", 1, [], ["refused", "ollama-dify doctor"]),
    "doctor compares": (
        "doctor --base-url {url} --base-url {url}/api --embedding-model nomic-embed-text",
        0, ["Digest", "embedding"], [],
    ),
    "doctor, a placeholder of the guide": (
        "doctor --lang ja --base-url 'http://<your-ollama-endpoint-domain>:11434'",
        1, ["    → ", "置き換えてください", "http://192.168.1.100:11434"], [],
    ),
    "form of a missing model": ("form lava --base-url {url}", 1, [], ["no such model", "llava:latest"]),
    "embed with a chat model": ("embed llava a --base-url {url}", 1, [], ["nomic-embed-text"]),
    "chat with an image": ("chat llava 'What is this?' --image {image} --base-url {url}", 0, ["PNG"], []),
    "chat with no image": ("chat llava ? --image /none.png --base-url {url}", 1, [], ["/none.png"]),
    "pull what no registry has": ("pull nope --base-url {url}", 1, [], ["ollama.com/library"]),
    "simulate, a busy port": ("simulate --port {port}", 1, [], ["--port"]),
    "simulate, an impossible port": ("simulate --port 99999", 1, [], ["--port"]),
    "simulate, an unknown capability": ("simulate --model a=flying", 2, [], ["flying"]),
}  # fmt: skip


@pytest.mark.parametrize(("line", "code", "said", "complained"), ROWS.values(), ids=list(ROWS))
def test_command(
    line: str,
    code: int,
    said: Sequence[str],
    complained: Sequence[str],
    server: SimulatedOllama,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, image = server.base_url, next(IMAGE.glob("*.png"))
    assert main(shlex.split(line.format(url=url, port=url.rpartition(":")[2], image=image))) == code
    output, errors = capsys.readouterr()
    assert [words for words in said if words not in output] == []
    assert [words for words in complained if words not in errors] == []
    assert bool(errors) is bool(complained)
    assert len(errors.splitlines()) <= 2
    assert "\033" not in output, "a pipe gets no colours"


@pytest.mark.parametrize(
    ("command", "widest"), [(["form", "llava"], 40), (["models"], 53)], ids=["form", "models"]
)
def test_narrow_terminals_break_no_line(
    command: list[str],
    widest: int,
    server: SimulatedOllama,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main([*command, "--lang", "ja", "--base-url", server.base_url]) == 0
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if "。" not in line and "Docker" not in line]  # sentences wrap
    assert max(width(line) for line in lines) <= widest
    assert any(line.startswith("  ") for line in lines)


def test_json_is_for_scripts_and_goes_round(
    server: SimulatedOllama, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["form", "llava", "--json", "--base-url", server.base_url]) == 0
    form = capsys.readouterr().out
    stored = json.loads(form)
    assert stored["model_type"] == "llm"
    assert stored["credentials"]["vision_support"] == "true"
    settings = ChatSettings.from_dify(stored["model"], stored["credentials"])
    assert (settings.vision_support, settings.context_size) == (True, 32768)
    (tmp_path / "form.json").write_text(form)
    assert main(["doctor", "--json", "--from-dify", str(tmp_path / "form.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {check["name"]: check["state"] for check in report["checks"]}["capabilities"] == "ok"
    assert main(["models", "--json", "--base-url", server.base_url]) == 0
    assert "llava:latest" in {row["name"] for row in json.loads(capsys.readouterr().out)["models"]}


def test_from_an_error_to_its_end_in_japanese(
    server: SimulatedOllama, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first user in a container: the call fails, the doctor names the address, the address works."""
    assert main(["chat", "llava", "こんにちは", "--lang", "ja", "--base-url", DEAD]) == 1
    assert "原因を調べるには: ollama-dify doctor" in capsys.readouterr().err
    world = MadeUp(files=DOCKER, ports={("172.18.0.1", 11434): int(server.base_url.rpartition(":")[2])})
    args = Namespace(
        base_url=["http://localhost:11434"], model="llava", embedding_model=None, from_dify=None, json=False,
        no_probe=False, load=False,
    )  # fmt: skip
    from ollama_dify import language

    with language("ja"):
        assert doctor(args, Terminal(), world.world()) == 1
    assert "→ 次を使ってください: base_url=http://172.18.0.1:11434" in capsys.readouterr().out
    args.base_url = ["http://172.18.0.1:11434"]
    with language("ja"):
        assert doctor(args, Terminal(), world.world()) == 0
    assert "問題は見つかりませんでした。" in capsys.readouterr().out


def test_a_conversation(server: SimulatedOllama, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the answer and not the conversation; what was said before is sent along."""
    server.reset()
    server.reply(Reply("First.", thinking="Hm."), Reply("Second."))
    typed: Iterator[str | type[BaseException]] = iter(["One", KeyboardInterrupt, " ", "Two", EOFError])

    def read(prompt: str) -> str:
        found = next(typed)
        if isinstance(found, str):
            return found
        raise found

    args = Namespace(
        model="llava", base_url=server.base_url, context_size=4096, image=[], audio=[], system="Be short.",
        prompt=None,
    )  # fmt: skip
    assert chat(args, Terminal(), read) == 0
    assert "Hm.\n\nFirst.\n\nSecond.\n" in capsys.readouterr().out
    roles = [message["role"] for message in server.requests[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


def test_pull_is_an_iterator_and_may_be_left(server: SimulatedOllama) -> None:
    server.models.pop("llama3.2:latest", None)
    with OllamaClient(ConnectionSettings(base_url=server.base_url)) as client:
        steps = list(client.pull("llama3.2"))
        assert steps[-1].status == "success"
        assert max(step.share or 0 for step in steps) == 1
        for _step in client.pull("llama3.2"):
            break
        server.reply(Reply(raw=b'{"status":"pulling manifest"}\n'), path="/api/pull")
        with pytest.raises(OllamaError, match="ended before its end"):
            list(client.pull("llama3.2"))


def run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ollama_dify", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OLLAMA_DIFY_LANG": "en", "PYTHONUNBUFFERED": "1"},
    )


def test_simulate_tells_its_port_and_ends_with_ctrl_c() -> None:
    with run("simulate", "--port", "0", "--model", "llava=vision,tools") as process:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http")).rstrip(":")
        info = OllamaClient(ChatSettings(model="llava", base_url=url)).model_info()
        assert info.capabilities == {"completion", "vision", "tools"}
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
        assert "Ended." in output


def test_a_host_that_is_unknown_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().complain_of_port("gpu", 1, socket.gaierror(-2, "Name or service not known"))
    assert "gpu:1: Name or service not known." in capsys.readouterr().err


def test_ctrl_c_ends_an_answer(server: SimulatedOllama) -> None:
    server.latency.chunk_s = 0.2
    try:
        server.reply(Reply("word " * 200))
        with run("chat", "llava", "Hello", "--base-url", server.base_url) as process:
            assert process.stdout is not None
            process.stdout.read(5)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=30)
            assert (process.returncode, errors) == (0, "")
            assert output.endswith("(ended)\n")
    finally:
        server.latency.chunk_s = 0.0


def test_the_core_alone_is_enough() -> None:
    """No extra is imported by the command."""
    code = (
        "import sys, ollama_dify.cli as c; c.main(['doctor', '--no-probe', '--base-url', 'http://127.0.0.1:9']);"
        "print(sorted({'typer', 'click', 'rich', 'yaml', 'tokenizers'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    # httpx brings rich along for a command of its own; it is not loaded here.
    assert done.stderr.strip() == "[]", done.stderr
