"""`app`: what a Dify app's export says of Ollama models, and code to paste."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..language import _
from ..settings.dify_app import DifyNode, load_dify_app
from ..settings.model import ChatSettings
from .terminal import Terminal

__all__ = ["app"]

# Package, class, how the answer is asked for, and a user's message, by framework.
_FRAMEWORKS = {
    "LangChain": (
        "langchain_ollama_dify", "ChatOllamaDify", "model.invoke(messages).text",
        "from langchain_core.messages import HumanMessage", 'HumanMessage("Hello")',
    ),
    "LlamaIndex": (
        "llamaindex_ollama_dify", "OllamaDify", "model.chat(messages).message.content",
        "from llama_index.core.llms import ChatMessage", 'ChatMessage("Hello")',
    ),
}  # fmt: skip


def app(args: Namespace, terminal: Terminal) -> int:
    """Print the app's models, settings and notes, and code that runs its prompts."""
    path = Path(args.file)
    found = load_dify_app(path)
    changes = {} if args.base_url is None else {"base_url": args.base_url}
    notes, usable, rows = list(found.notes), [], []
    for place, node in enumerate(found.nodes):
        try:
            settings = node.settings(**changes)
        except ConfigurationError as error:
            notes.append(f"{node.title}: {error.message}")
        else:
            usable.append((place, node, settings))
            rows.append((_line(node.title), node.kind, node.model, _set(settings), ", ".join(node.variables)))
    rows += [(_line(one.place), one.kind, one.model, "", "") for one in (*found.embeddings, *found.rerankers)]
    code = {name: _code(name, path, [one[:2] for one in usable], changes) for name in _FRAMEWORKS}
    if args.json:
        nodes = [_as_json(node, settings) for _place, node, settings in usable]
        models = [{"model": row[2], "kind": row[1], "place": row[0]} for row in rows[len(usable) :]]
        value = {"name": found.name, "mode": found.mode, "nodes": nodes, "models": models, "notes": notes}
        terminal.say(json.dumps({**value, "code": code}, ensure_ascii=False, indent=2))
        return 0
    if not rows:
        terminal.say(_("The app names no Ollama model."))
    else:
        terminal.table((_("Node"), _("Kind"), _("Model"), _("Settings"), _("Variables")), rows)
    for note in notes:
        terminal.say(terminal.paint(f"! {_line(note)}", "yellow"))
    for name in code if usable else ():
        terminal.say("\n" + terminal.paint(f"# {name}", "bold") + "\n" + code[name])
    return 0


def _code(framework: str, path: Path, nodes: list[tuple[int, DifyNode]], changes: dict[str, Any]) -> str:
    """A program that asks each node's prompt once."""
    package, model, ask, message_import, message = _FRAMEWORKS[framework]
    given = "".join(f"{name}={value!r}" for name, value in changes.items())
    needs_question = {place for place, node in nodes if all(one.role != "user" for one in node.messages)}
    lines = ["from pathlib import Path", "", *([message_import] if needs_question else [])]
    lines += [f"from {package} import {model}, prompt_template", "from ollama_dify import load_dify_app", ""]
    lines.append(f"app = load_dify_app(Path({str(path)!r}))")
    for place, node in nodes:
        values = {name: f"<{name}>" for name in node.variables}
        more = f" + [{message}]" if place in needs_question else ""
        lines += [
            f"\n# {_line(node.title)}",
            f"node = app.nodes[{place}]",
            f"model = {model}.from_settings(node.settings({given}))",
            f"messages = prompt_template(node).format_messages(**{values!r}){more}",
            f"print({ask})",
        ]
    return "\n".join(lines)


def _set(settings: ChatSettings) -> str:
    """What the node sets beside its model."""
    return ", ".join(f"{name}={value!r}" for name, value in _values(settings).items() if name != "model")


def _values(settings: ChatSettings) -> dict[str, Any]:
    values: dict[str, Any] = settings.model_dump(mode="json", exclude_unset=True)
    return values


def _as_json(node: DifyNode, settings: ChatSettings) -> dict[str, Any]:
    values = {
        name: getattr(node, name) for name in ("id", "title", "kind", "variables", "memory", "memory_window")
    }
    messages = [{"role": one.role, "text": one.text} for one in node.messages]
    return {**values, "settings": _values(settings), "messages": messages}


def _line(text: str) -> str:
    """The text in one line, without characters that a terminal or Python would act on."""
    return "".join(character if character.isprintable() else " " for character in text)
