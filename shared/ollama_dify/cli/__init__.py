"""The command `ollama-dify`, also `python -m ollama_dify`; works with the core's dependencies alone.

Exit codes: 0 done, 1 a problem (said in one or two lines), 2 wrong use.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import NoReturn

from ..errors import ConfigurationError, ConnectionFailedError, OllamaError, RequestTimeoutError
from ..language import LANGUAGES, _, locale_language
from ..language import language as in_language

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """Says wrong use in two lines, and its headings in the language in force."""

    def error(self, message: str) -> NoReturn:
        wrong = _("{command}: wrong use: {message}").format(command=self.prog, message=message)
        self.exit(2, wrong + "\n" + _("See: {command} --help").format(command=self.prog) + "\n")

    def format_help(self) -> str:
        text = super().format_help()
        headings = {
            "usage:": _("usage:"),
            "positional arguments:": _("positional arguments:"),
            "options:": _("options:"),
            "show this help message and exit": _("show this help message and exit"),
        }
        for english, ours in headings.items():
            text = text.replace(english, ours, 1)
        return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    asked = _asked_language(arguments) or locale_language(os.environ)
    with in_language(asked if _can_be_shown(asked) else "en"):
        from .terminal import Terminal  # after the language: what it imports may speak

        terminal = Terminal()
        try:
            args = _parser().parse_args(arguments)
            run: Callable[..., int] = getattr(import_module(f"{__name__}.{args.module}"), args.function)
            return run(args, terminal)
        except SystemExit as error:  # argparse: --help, --version, wrong use
            return error.code if isinstance(error.code, int) else 2
        except ConfigurationError as error:
            terminal.complain(_short(error))
            return 2
        except OllamaError as error:
            terminal.complain(_short(error))
            return 1
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # the reader of the pipe has seen enough
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # so that Python's end does not write either
            return 0


def _asked_language(arguments: Sequence[str]) -> str | None:
    """The value of --lang, wherever it stands: the help text is in that language too."""
    for place, argument in enumerate(arguments):
        value = argument.partition("=")[2] if argument.startswith("--lang=") else ""
        if argument == "--lang" and place + 1 < len(arguments):
            value = arguments[place + 1]
        if value in LANGUAGES:
            return value
    return None


def _can_be_shown(language: str) -> bool:
    """Whether the terminal's encoding has the language's characters."""
    try:
        {"ja": "日本語", "zh": "简体中文"}.get(language, "").encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _short(error: OllamaError) -> str:
    """An error in two lines; of a connection the doctor knows more."""
    if isinstance(error, ConnectionFailedError) and not isinstance(error, RequestTimeoutError):
        return error.message + "\n" + _("To find out why: ollama-dify doctor")
    hint = " ".join(line.strip() for line in (error.hint or "").split("\n")).replace("。 ", "。")
    return f"{error.message}\n{hint}" if hint else error.message


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ollama-dify",
        description=_("Ollama with the settings of Dify's form."),
        epilog=_("Exit codes: 0 done, 1 a problem, 2 wrong use."),
    )
    version = f"ollama-dify {metadata.version('ollama-dify')}"
    parser.add_argument("--version", action="version", version=version, help=_("Print the version."))
    language = _Parser(add_help=False)
    for one in (parser, language):
        one.add_argument(
            "--lang", choices=LANGUAGES, default=argparse.SUPPRESS, help=_("Language of the texts.")
        )
    commands = parser.add_subparsers(dest="command", required=True, metavar=_("COMMAND"))

    def command(name: str, help: str, module: str = "commands", **more: object) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help, parents=[language])
        added.set_defaults(module=module, function=name, **more)
        return added

    _add_doctor(command("doctor", _("Find out why Ollama does not answer, or not as the settings say.")))
    form = _with_server(command("form", _("Print what to type into Dify's form for a model.")), json=True)
    form.add_argument("model", metavar="MODEL")
    form.add_argument(
        "--type", choices=("llm", "embedding", "rerank"), help=_("Model type; unset: as the model can.")
    )
    _with_server(command("models", _("List the server's models.")), json=True)
    pull = _with_server(command("pull", _("Download a model to the server.")), json=False)
    pull.add_argument("model", metavar="MODEL")
    _add_chat(command("chat", _("Chat with a model."), "chat"))
    embed = _with_server(command("embed", _("Embed texts.")), json=True)
    embed.add_argument("model", metavar="MODEL")
    embed.add_argument("text", metavar="TEXT", nargs="*", help=_("Unset: the lines of standard input."))
    app = _with_server(
        command("app", _("Show a Dify app's Ollama models, and code for them."), "app"), json=True
    )
    app.add_argument("file", metavar="FILE", help=_("An export (DSL) of the app."))
    _add_demo(command("demo", _("Answer questions over files and images through both frameworks.")))
    _add_simulate(command("simulate", _("Serve a simulated Ollama: the real protocol, no model.")))
    return parser


def _with_server(parser: argparse.ArgumentParser, *, json: bool) -> argparse.ArgumentParser:
    parser.add_argument(
        "--base-url", metavar="URL", help=_("Address of the server; unset: OLLAMA_HOST, else localhost.")
    )
    if json:
        parser.add_argument("--json", action="store_true", help=_("Print JSON."))
    return parser


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base-url",
        metavar="URL",
        action="append",
        help=_("Address of the server; given several times, the servers are compared."),
    )
    parser.add_argument("--model", metavar="MODEL", help=_("A chat model to look at."))
    parser.add_argument("--embedding-model", metavar="MODEL", help=_("An embedding model to look at."))
    parser.add_argument(
        "--from-dify", metavar="FILE", help=_("A stored form (JSON), as `form --json` prints it.")
    )
    parser.add_argument("--json", action="store_true", help=_("Print JSON."))
    parser.add_argument("--no-probe", action="store_true", help=_("Try no other addresses."))
    parser.add_argument(
        "--load", action="store_true", help=_('Load the model and have it answer `ping`, as "Save" in Dify.')
    )


def _add_chat(parser: argparse.ArgumentParser) -> None:
    _with_server(parser, json=False)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help=_("Unset: a conversation."))
    parser.add_argument("--image", metavar="FILE", action="append", default=[], help=_("An image to send."))
    parser.add_argument("--audio", metavar="FILE", action="append", default=[], help=_("A sound to send."))
    parser.add_argument("--system", metavar="TEXT", help=_("A system message."))
    parser.add_argument(
        "--context-size", metavar="TOKENS", type=int, default=4096, help=_("Model context size.")
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="llava", help=_("A chat model that reads images."))
    parser.add_argument("--embedding-model", default="nomic-embed-text", help=_("An embedding model."))
    parser.add_argument("--base-url", metavar="URL", help=_("Address of the server."))
    parser.add_argument("--index-dir", metavar="DIR", default=".demo", help=_("Where the index is kept."))
    parser.add_argument("--rebuild", action="store_true", help=_("Build the index anew."))


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help=_("Address to listen on."))
    parser.add_argument("--port", type=int, default=11434, help=_("Port; 0 takes a free one."))
    parser.add_argument(
        "--ollama-version", metavar="VERSION", default="0.33.0", help=_("Which Ollama to act as.")
    )
    parser.add_argument(
        "--model",
        metavar="NAME=CAPABILITIES",
        action="append",
        help=_("A model it has, such as llava=vision,tools; may be given several times."),
    )
