"""The command `ollama-dify`, also `python -m ollama_dify`; works with the core's dependencies alone.

Exit codes: 0 success, 1 an error (in one or two lines), 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import gettext
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Any, NoReturn

from ..errors import ConfigurationError, ConnectionFailedError, OllamaError, RequestTimeoutError
from ..language import LANGUAGES, LOCALE, N_, _, current_language, locale_language
from ..language import language as in_language
from ..terminal import Terminal, can_show

__all__ = ["main"]

TEXTS_OF_ARGPARSE = (
    N_("usage: "),
    N_("positional arguments"),
    N_("options"),
    N_("show this help message and exit"),
    N_("the following arguments are required: %s"),
    N_("unrecognized arguments: %s"),
    N_("argument %(argument_name)s: %(message)s"),
    N_("expected one argument"),
    N_("ignored explicit argument %r"),
    N_("invalid choice: %(value)r (choose from %(choices)s)"),
    N_("invalid %(type)s value: %(value)r"),
)


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments in two lines."""

    def error(self, message: str) -> NoReturn:
        wrong = _("{command}: wrong use: {message}").format(command=self.prog, message=message)
        self.exit(2, wrong + "\n" + _("See: {command} --help").format(command=self.prog) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--lang", nargs="?")
    # Read before all others, so that messages about other arguments are in this language too.
    asked = early.parse_known_args(arguments)[0].lang
    language = asked if asked in LANGUAGES else locale_language(os.environ)
    terminal = Terminal()
    with in_language(language if can_show({"ja": "日本語", "zh": "简体中文"}.get(language, "")) else "en"):
        try:
            args = _parser().parse_args(arguments)
            run: Callable[..., int] = getattr(import_module(f"ollama_dify.{args.module}"), args.command)
            return run(args, terminal)
        except SystemExit as error:  # argparse: --help, --version, wrong use
            return error.code if isinstance(error.code, int) else 2
        except OllamaError as error:
            terminal.complain(_short(error))
            return 2 if isinstance(error, ConfigurationError) else 1
        except ModuleNotFoundError as error:
            if error.name not in ("starlette", "uvicorn"):
                raise
            needed = _("The page needs an extra. Install it with: {command}")
            terminal.complain(needed.format(command='pip install "ollama-dify[web]"'))
            return 1
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # the reader closed the pipe
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # so that Python does not write at exit
            return 0


def _short(error: OllamaError) -> str:
    """An error in two lines; for a connection error it refers to the doctor."""
    if isinstance(error, ConnectionFailedError) and not isinstance(error, RequestTimeoutError):
        return error.message + "\n" + _("To find out why: ollama-dify doctor")
    hint = " ".join(line.strip() for line in (error.hint or "").split("\n")).replace("。 ", "。")
    return f"{error.message}\n{hint}" if hint else error.message


def _parser() -> argparse.ArgumentParser:
    # argparse translates its own texts with the process's text domain.
    gettext.bindtextdomain("ollama_dify", LOCALE)
    gettext.textdomain("ollama_dify")
    os.environ["LANGUAGE"] = current_language()
    parser = _Parser(
        prog="ollama-dify",
        description=_("Ollama with the settings of Dify's form."),
        epilog=_("Exit codes: 0 done, 1 a problem, 2 wrong use."),
    )
    version = f"ollama-dify {metadata.version('ollama-dify')}"
    parser.add_argument("--version", action="version", version=version, help=_("Print the version."))
    commands = parser.add_subparsers(dest="command", required=True, metavar=_("COMMAND"))

    url = _("Address of the server; unset: OLLAMA_HOST, else localhost.")
    shared: dict[str, dict[str, Any]] = {
        "--lang": {
            "choices": LANGUAGES,
            "default": argparse.SUPPRESS,
            "help": _("Language of the texts."),
        },
        "--base-url": {"metavar": "URL", "help": url},
        "--json": {"action": "store_true", "help": _("Print JSON.")},
        "model": {"metavar": "MODEL"},
    }
    parser.add_argument("--lang", **shared["--lang"])

    def command(name: str, about: str, *names: str, module: str = "cli.commands") -> Callable[..., Any]:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(module=module)
        for option in ("--lang", *names):
            added.add_argument(option, **shared[option])
        return added.add_argument

    _add_commands(command)
    return parser


def _add_commands(command: Callable[..., Callable[..., Any]]) -> None:
    """The commands; each is a function of that name in its module."""
    port = _("Port; 0 takes a free one.")

    add = command("doctor", _("Find out why Ollama does not answer, or not as the settings say."), "--json")
    several = _("Address of the server; given several times, the servers are compared.")
    add("--base-url", metavar="URL", action="append", help=several)
    add("--model", help=_("A chat model to look at."))
    add("--embedding-model", metavar="MODEL", help=_("An embedding model to look at."))
    add("--from-dify", metavar="FILE", help=_("A stored form (JSON), as `form --json` prints it."))
    add("--no-probe", action="store_true", help=_("Try no other addresses."))
    load = _('Load the model and have it answer `ping`, as "Save" in Dify.')
    add("--load", action="store_true", help=load)

    add = command("form", _("Print what to type into Dify's form for a model."), "--base-url", "--json")
    add("model", metavar="MODEL", nargs="?")
    page = _("Show the form as a page in the browser.")
    add("--web", action="store_const", dest="module", const="web", help=page)
    add("--port", type=int, default=0, help=port)
    add("--no-open", action="store_true", help=_("Print the page's address only."))
    kinds = ("llm", "embedding", "rerank")
    add("--type", choices=kinds, help=_("Model type; unset: as the model can."))

    command("models", _("List the server's models."), "--base-url", "--json")
    command("pull", _("Download a model to the server."), "--base-url", "model")

    add = command("chat", _("Chat with a model."), "--base-url", "model")
    add("prompt", metavar="PROMPT", nargs="?", help=_("Unset: a conversation."))
    add("--image", metavar="FILE", action="append", default=[], help=_("An image to send."))
    add("--audio", metavar="FILE", action="append", default=[], help=_("A sound to send."))
    add("--system", metavar="TEXT", help=_("A system message."))
    add("--context-size", metavar="TOKENS", type=int, default=4096, help=_("Model context size."))

    add = command("embed", _("Embed texts."), "--base-url", "--json", "model")
    add("text", metavar="TEXT", nargs="*", help=_("Unset: the lines of standard input."))

    about = _("Show a Dify app's Ollama models, and code for them.")
    add = command("app", about, "--base-url", "--json", module="cli.app")
    add("file", metavar="FILE", help=_("An export (DSL) of the app."))

    add = command("demo", _("Answer questions over files and images through both frameworks."), "--base-url")
    add("--model", default="llava", help=_("A chat model that reads images."))
    add("--embedding-model", metavar="MODEL", default="nomic-embed-text", help=_("An embedding model."))
    add("--index-dir", metavar="DIR", default=".demo", help=_("Where the index is kept."))
    add("--rebuild", action="store_true", help=_("Build the index anew."))

    add = command("simulate", _("Serve a simulated Ollama: the real protocol, no model."))
    add("--host", default="127.0.0.1", help=_("Address to listen on."))
    add("--port", type=int, default=11434, help=port)
    add("--ollama-version", metavar="VERSION", default="0.33.0", help=_("Which Ollama to act as."))
    several = _("A model it has, such as llava=vision,tools; may be given several times.")
    add("--model", metavar="NAME=CAPABILITIES", action="append", help=several)
