"""The commands; each function returns the exit code."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..client.blocking import OllamaClient
from ..doctor import Check, Report, World, diagnose
from ..doctor.model import fill_form
from ..errors import ConfigurationError, OllamaError
from ..language import _, current_language
from ..media.image import Audio, Image
from ..settings import ChatSettings, ConnectionSettings, EmbeddingSettings
from ..settings.dify_form import FORM_FIELDS
from ..terminal import Terminal, size_text
from ..wire.messages import Content, Message, assistant, system, user


def doctor(args: Namespace, terminal: Terminal, world: World | None = None) -> int:
    """Check each server; several servers are compared."""
    reports = {url or "": _examined(args, url, world) for url in args.base_url or [None]}
    is_ok = all(report.ok for report in reports.values())
    if args.json:
        checks: list[dict[str, Any]] = []
        for url, report in reports.items():
            more = {"base_url": url} if url else {}
            checks += [{**check, **more} for check in report.to_dict()["checks"]]
        terminal.say_json({"ok": is_ok, "checks": checks})
        return 0 if is_ok else 1
    for url, report in reports.items():
        if len(reports) > 1:
            terminal.say(terminal.paint(url, "bold"))
        terminal.say(terminal.paint_marks(report.text(plain=terminal.is_plain)))
    if len(reports) > 1:
        _compare(terminal, reports)
    return 0 if is_ok else 1


def _examined(args: Namespace, base_url: str | None, world: World | None) -> Report:
    changes: dict[str, Any] = {} if base_url is None else {"base_url": base_url}
    settings: list[ConnectionSettings] = []
    try:
        if args.from_dify is not None:
            settings.append(_stored_form(args.from_dify, args.model, changes))
        elif args.model is not None:
            settings.append(ChatSettings(model=args.model, **changes))
        if args.embedding_model is not None:
            settings.append(EmbeddingSettings(model=args.embedding_model, **changes))
        settings = settings or [ConnectionSettings(**changes)]
    except ConfigurationError as error:
        problem = Check("server", "fail", error.message, error.hint, "address")
        return Report((problem,), current_language())
    return diagnose(settings, probe=not args.no_probe, load=args.load, world=world)


def _stored_form(path: str, model: str | None, changes: Mapping[str, Any]) -> ConnectionSettings:
    """A form as `form --json` prints it, or only its credentials together with --model."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--from-dify {path}: {error}") from None
    if not isinstance(stored, dict):
        raise ConfigurationError(f"--from-dify {path}: a JSON object is needed.")
    form = dict(stored.get("credentials", stored))
    names = [form.pop(key, stored.get(key)) for key in ("model", "model_name")]
    kind = form.pop("model_type", stored.get("model_type"))
    name = model or next((name for name in names if name), None)
    if not isinstance(name, str):
        raise ConfigurationError(f"--from-dify {path}: it names no model; give --model too.")
    make = EmbeddingSettings if kind == "text-embedding" else ChatSettings
    return make.from_dify(name, form, **changes)


def _compare(terminal: Terminal, reports: Mapping[str, Report]) -> None:
    """Version, digest and capabilities of each server, side by side."""
    rows = []
    for url, report in reports.items():
        data = {name: value for check in report.checks for name, value in check.data.items()}
        digest, can = data.get("digest") or "–", data.get("capabilities") or ["–"]
        rows.append((url, data.get("version") or "–", digest[:12], ", ".join(can)))
    terminal.say()
    terminal.table((_("Base URL"), _("Version"), _("Digest"), _("Capabilities")), rows)
    if len({row[2] for row in rows}) > 1:
        terminal.say(_("The servers do not have the same model."))


def form(args: Namespace, terminal: Terminal) -> int:
    """Print the form, ready to type."""
    if args.model is None:
        raise ConfigurationError(_("Name a MODEL, or give --web."))
    settings, language = ConnectionSettings(base_url=args.base_url), current_language()
    with OllamaClient(settings) as client:
        values, notes = fill_form(client.model_info(args.model), settings.address.url, args.type)
    fields = [field for field in FORM_FIELDS if field.variable in values]
    if args.json:
        stored = {name: value for name, value in values.items() if name not in ("model", "model_type")}
        kind = {"model": args.model, "model_type": values["model_type"]}
        terminal.say_json({**kind, "credentials": stored})
        return 0
    rows = []
    for field in fields:
        value = values[field.variable]
        shown = {stored: labels[language] for stored, labels in field.options}.get(value, value)
        rows.append((field.labels[language], shown))
    terminal.table((_("Field"), _("Value")), rows)
    for field in fields:
        if field.variable in notes:
            terminal.say(terminal.paint(f"{field.labels[language]}: {notes[field.variable]}", "dim"))
    return 0


def models(args: Namespace, terminal: Terminal) -> int:
    """Print the server's models."""
    with OllamaClient(ConnectionSettings(base_url=args.base_url)) as client:
        loaded = {model.name: model.context_length for model in client.ps()}
        found = [(model, client.model_info(model.name)) for model in client.tags()]
    if args.json:
        rows = [
            {
                "name": model.name,
                "size": model.size,
                "digest": model.digest,
                "context_length": info.context_length,
                "embedding_length": info.embedding_length,
                "capabilities": sorted(info.capabilities or ()),
                "loaded": model.name in loaded,
            }
            for model, info in found
        ]
        terminal.say_json({"models": rows})
        return 0
    if not found:
        terminal.say(_("The server has no models yet.") + " " + _("Get one: ollama pull llava"))
        return 0
    table = []
    for model, info in found:
        name, context = model.name, str(info.context_length or "?")
        can = "?" if info.capabilities is None else ", ".join(sorted(info.capabilities))
        state = _("yes ({context})").format(context=loaded[name]) if name in loaded else ""
        table.append((name, size_text(model.size), context, can, state))
    terminal.table((_("Name"), _("Size"), _("Context"), _("Capabilities"), _("Loaded")), table)
    return 0


def pull(args: Namespace, terminal: Terminal) -> int:
    """Download a model: a bar in a terminal, one line per step in a pipe."""
    last = ""
    with OllamaClient(ConnectionSettings(base_url=args.base_url)) as client:
        try:
            for step in client.pull(args.model):
                sizes = f" {size_text(step.completed or 0)}/{size_text(step.total)}" if step.total else ""
                terminal.progress(step.status + sizes, step.share)
                if step.status != last and not terminal.is_tty:
                    terminal.say(step.status)
                last = step.status
        finally:
            terminal.progress("", None)
    terminal.say(_("{model} is on the server.").format(model=args.model))
    return 0


def chat(args: Namespace, terminal: Terminal, read: Callable[[str], str] = input) -> int:
    """Stream an answer to the prompt; without one, hold a conversation until Ctrl-D or /bye."""
    settings = ChatSettings(model=args.model, base_url=args.base_url, context_size=args.context_size)
    media: list[Content] = [Image.from_path(path) for path in args.image]
    media += [Audio.from_path(path) for path in args.audio]
    messages: list[Message] = [] if args.system is None else [system(args.system)]
    prompt = args.prompt
    if prompt is None and not sys.stdin.isatty() and read is input:
        prompt = sys.stdin.read()
    with OllamaClient(settings) as client:
        if prompt is not None:
            return 0 if _answer(client, [*messages, user(prompt, *media)], terminal) is not None else 1
        terminal.say(terminal.paint(_("Ctrl-C ends an answer, Ctrl-D or /bye the conversation."), "dim"))
        while True:
            try:
                text = read(">>> ").strip()
            except KeyboardInterrupt:
                text = ""
                terminal.say()
            except EOFError:
                terminal.say()
                return 0
            if text == "/bye":
                return 0
            asked = user(text, *media)
            try:
                answer = _answer(client, [*messages, asked], terminal) if text else None
            except OllamaError as error:
                terminal.complain(str(error))
                continue
            if answer:
                messages += [asked, assistant(answer)]
                media = []


def _answer(client: OllamaClient, messages: list[Message], terminal: Terminal) -> str | None:
    """Write an answer as it arrives; returns the received text. None if Ctrl-C came first."""
    thinking = False
    with client.chat_stream(messages) as stream:
        try:
            for chunk in stream:
                if chunk.thinking:
                    thinking = True
                    terminal.say(terminal.paint(chunk.thinking, "dim"), end="")
                if chunk.text:
                    terminal.say("\n\n" if thinking else "", end="")
                    thinking = False
                    terminal.say(chunk.text, end="")
        except KeyboardInterrupt:
            terminal.say(" " + terminal.paint(_("(ended)"), "dim"), end="")
        terminal.say()
        return stream.result.text or None


def embed(args: Namespace, terminal: Terminal) -> int:
    """Embed texts, or the lines of standard input."""
    settings = EmbeddingSettings(model=args.model, base_url=args.base_url)
    texts = args.text or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    with OllamaClient(settings) as client:
        result = client.embed(texts)
    if args.json:
        tokens = result.input_tokens
        terminal.say_json({"model": args.model, "vectors": result.vectors, "input_tokens": tokens})
        return 0
    for vector in result.vectors:
        first = ", ".join(f"{number:.4f}" for number in (vector or [])[:4])
        terminal.say(_("{length} numbers: {first}, …").format(length=len(vector or []), first=first))
    return 0


def demo(args: Namespace, terminal: Terminal) -> int:
    """Run the demo; it says what it needs."""
    from ..demo import main  # frameworks and all

    names = ("model", "embedding_model", "base_url", "index_dir", "rebuild")
    return main(**{name: getattr(args, name) for name in names})


def simulate(args: Namespace, terminal: Terminal) -> int:
    """Serve a simulated Ollama until Ctrl-C."""
    from ..testing import SimulatedModel, SimulatedOllama  # the server is for those who simulate

    known = {"completion", "tools", "thinking", "vision", "audio", "embedding", "insert"}
    chosen = []
    for text in args.model or ():
        name, _equals, can = text.partition("=")
        capabilities = [one.strip() for one in can.split(",") if one.strip()] or ["completion", "tools"]
        if not set(capabilities) <= known:
            raise ConfigurationError(f"--model {text}: capabilities are {', '.join(sorted(known))}.")
        if "embedding" not in capabilities:
            capabilities = ["completion", *(one for one in capabilities if one != "completion")]
        chosen.append(SimulatedModel(name, capabilities))
    server = SimulatedOllama(chosen or None, host=args.host, port=args.port, version=args.ollama_version)

    async def serve() -> None:
        await server.start()
        said = _("Simulated Ollama {version} at {url}: the real protocol, answers by rule. Ctrl-C ends it.")
        terminal.say(said.format(version=args.ollama_version, url=server.base_url))
        await server.serve_forever()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        terminal.say(_("Ended."))
    except (OSError, OverflowError) as error:
        terminal.complain_of_port(args.host, args.port, error)
        return 1
    return 0
