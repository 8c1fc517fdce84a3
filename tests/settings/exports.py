"""Exports of Dify apps that hold what was seen in real ones, odd or not."""

from __future__ import annotations

from typing import Any

OLLAMA = "langgenius/ollama/ollama"


def model(name: str = "llava", provider: str | None = OLLAMA, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "mode": "chat", "completion_params": params}
    return found if provider is None else {**found, "provider": provider}


def node(kind: str, title: str = "Node", node_id: str = "1722", **data: Any) -> dict[str, Any]:
    return {"id": node_id, "type": "custom", "data": {"type": kind, "title": title, **data}}


def graph(*nodes: dict[str, Any], mode: str = "advanced-chat", **top: Any) -> dict[str, Any]:
    return {
        "app": {"name": "Support", "mode": mode},
        "kind": "app",
        "version": "0.6.0",
        "workflow": {"graph": {"edges": [], "nodes": list(nodes)}},
        **top,
    }


def simple(mode: str = "chat", **config: Any) -> dict[str, Any]:
    return {
        "app": {"name": "Simple", "mode": mode},
        "kind": "app",
        "model_config": {"model": model(), **config},
    }
