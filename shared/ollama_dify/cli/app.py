"""`app`: what a Dify app's export says of Ollama models, and code to paste."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..language import _
from ..settings.dify_app import DifyNode, load_dify_app
from ..terminal import Terminal

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
_OF_A_NODE = ("id", "title", "kind", "variables", "memory", "memory_window")


def app(args: Namespace, terminal: Terminal) -> int:
    """Print the app's models, settings and notes, and code that runs its prompts."""
    path = Path(args.file)
    found = load_dify_app(path)
    changes = {} if args.base_url is None else {"base_url": args.base_url}
    notes, usable, nodes, rows = list(found.notes), [], [], []
    for place, node in enumerate(found.nodes):
        try:
            values = node.settings(**changes).model_dump(mode="json", exclude_unset=True)
        except ConfigurationError as error:
            notes.append(f"{node.title}: {error.message}")
            continue
        usable.append((place, node))
        messages = [{"role": one.role, "text": one.text} for one in node.messages]
        about = {name: getattr(node, name) for name in _OF_A_NODE}
        nodes.append({**about, "settings": values, "messages": messages})
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items() if name != "model")
        rows.append((_line(node.title), node.kind, node.model, shown, ", ".join(node.variables)))
    others = [(_line(one.place), one.kind, one.model) for one in (*found.embeddings, *found.rerankers)]
    code = {name: _code(name, path, usable, changes) for name in _FRAMEWORKS}
    if args.json:
        models = [{"model": model, "kind": kind, "place": place} for place, kind, model in others]
        value = {"name": found.name, "mode": found.mode, "nodes": nodes, "models": models, "notes": notes}
        terminal.say_json({**value, "code": code})
        return 0
    rows += [(*row, "", "") for row in others]
    if rows:
        terminal.table((_("Node"), _("Kind"), _("Model"), _("Settings"), _("Variables")), rows)
    else:
        terminal.say(_("The app names no Ollama model."))
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


def _line(text: str) -> str:
    """The text in one line, without characters that a terminal or Python would act on."""
    return "".join(character if character.isprintable() else " " for character in text)
