"""A Dify app export (DSL, YAML): the Ollama models in it, their settings and prompts.

    app = load_dify_app("support.yml")
    for node in app.nodes:
        print(node.title, node.settings(base_url="http://gpu:11434"), node.variables)

It reads; it runs nothing. An export holds no address and no key, so settings take `base_url` from the caller
or from `OLLAMA_HOST`. What is not taken over stands in `app.notes`. The shapes are those of 320 exports in
public repositories, versions 0.1.0 to 0.6.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigurationError, DifyAppError
from ..language import _
from .dify_form import settings_from_completion_params
from .dify_prompt import DifyMessage, Prompt, read_prompt
from .model import ChatSettings

__all__ = ["DifyApp", "DifyModel", "DifyNode", "load_dify_app"]

MAX_BYTES = 4 * 1024 * 1024
"""Exports seen are 155 kB at most."""

_MAX_DEPTH = 60
_OLLAMA = ("ollama", "langgenius/ollama/ollama")
_GRAPH_KINDS = ("llm", "question-classifier", "parameter-extractor", "agent")

ModelKind = Literal["embedding", "rerank"]


@dataclass(frozen=True, slots=True)
class DifyModel:
    """An embedding or rerank model that the app names. place: the title of the node that names it."""

    model: str
    kind: ModelKind
    place: str


@dataclass(frozen=True, slots=True)
class DifyNode:
    """A place of the app that asks a chat or completion model.

    kind: Dify's type of the node ("llm", "question-classifier", …), or the app's mode where it has no graph.
    parameters: settings that `completion_params` set, by our names.
    messages: the prompt, in order; empty where Dify keeps none.
    variables: what the prompt takes, as {name: selector}: `{"topic": "1711.topic"}`.
    memory: whether earlier turns are sent; memory_window: how many at most, None for all.
    vision: whether images are sent; vision_variable: the selector they come from.
    schema: the JSON schema of its structured answer.
    """

    id: str
    title: str
    kind: str
    model: str
    mode: Literal["chat", "completion"] = "chat"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[DifyMessage, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    memory: bool = False
    memory_window: int | None = None
    vision: bool = False
    vision_variable: str | None = None
    schema: Mapping[str, Any] | None = None

    def settings(self, **changes: Any) -> ChatSettings:
        """The settings of this node's model; changes: what the export lacks, such as base_url, or overrides.

        Raises ConfigurationError for a value of the export that Ollama does not take.
        """
        values: dict[str, Any] = {"model": self.model, "mode": self.mode, **self.parameters}
        if self.vision:
            values["vision_support"] = True
        if self.schema is not None:
            values["format"] = dict(self.schema)
        return ChatSettings(**{**values, **changes})


@dataclass(frozen=True, slots=True)
class DifyApp:
    """What an export says of Ollama models. notes: what was not taken over, in the current language."""

    name: str
    mode: str
    nodes: tuple[DifyNode, ...]
    embeddings: tuple[DifyModel, ...]
    rerankers: tuple[DifyModel, ...]
    notes: tuple[str, ...]


def load_dify_app(source: Path | str | bytes) -> DifyApp:
    """Read an export.

    source: a path, the path as text (one line that ends in .yml, .yaml or .json), or the export's own text or
    bytes. Raises DifyAppError for what is no export; ConfigurationError where PyYAML is missing.
    """
    data = _parse(_read(source))
    app = data.get("app")
    has_content = any(isinstance(data.get(key), Mapping) for key in ("model_config", "workflow"))
    if not isinstance(app, Mapping) or not has_content or data.get("kind", "app") != "app":
        raise DifyAppError(
            "This is no export of a Dify app: it lacks `app` with `model_config` or `workflow`.",
            hint=_("In Dify, open the app's menu and choose “Export DSL”; then pass that file."),
        )
    return _Reader(app).read(data)


def _read(source: Path | str | bytes) -> bytes:
    if isinstance(source, str) and "\n" not in source and source.lower().endswith((".yml", ".yaml", ".json")):
        source = Path(source)
    if isinstance(source, Path):
        try:
            with open(source, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise DifyAppError(
                f"The export {str(source)!r} cannot be read: {why}.", hint=_("Check the path.")
            ) from error
    elif isinstance(source, str):
        data = source.encode("utf-8", "surrogatepass")
    elif isinstance(source, bytes | bytearray):
        data = bytes(source)
    else:
        raise DifyAppError(f"load_dify_app takes a path, text or bytes, not {type(source).__name__}.")
    if len(data) > MAX_BYTES:
        raise DifyAppError(
            f"The export is over {MAX_BYTES >> 20} MiB; real ones are far smaller.",
            hint=_("Is this the right file?"),
        )
    return data


def _parse(data: bytes) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise ConfigurationError(
            "Reading a Dify app needs PyYAML, which is not installed.",
            hint=_('Install it with: pip install "ollama-dify[dify]".'),
        ) from error

    try:
        depth = 0
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise DifyAppError("The export holds a YAML alias, which Dify never writes.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise DifyAppError(f"The export is nested over {_MAX_DEPTH} levels deep.")
        loaded = yaml.load(data, Loader=yaml.SafeLoader)
    except DifyAppError:
        raise
    except Exception as error:
        # PyYAML raises YAMLError, and whatever a date, a number or an encoding provokes.
        raise DifyAppError(
            f"The export is no YAML that can be read: {' '.join(str(error).split())[:200]}.",
            hint=_("Export the app from Dify once more."),
        ) from error
    if not isinstance(loaded, Mapping):
        raise DifyAppError("The export holds no mapping at its top.")
    return loaded


class _Reader:
    """Collects what one export says."""

    def __init__(self, app: Mapping[str, Any]) -> None:
        self._name = _text(app.get("name"))
        self._mode = _text(app.get("mode")) or "workflow"
        self._nodes: list[DifyNode] = []
        self._models: dict[DifyModel, None] = {}
        self._notes: list[str] = []

    def read(self, data: Mapping[str, Any]) -> DifyApp:
        config = data.get("model_config")
        if isinstance(config, Mapping) and config.get("model"):
            self._read_simple(config)
        for node in _nodes(data):
            self._read_node(node)
        models = list(self._models)
        return DifyApp(
            self._name,
            self._mode,
            tuple(self._nodes),
            tuple(model for model in models if model.kind == "embedding"),
            tuple(model for model in models if model.kind == "rerank"),
            tuple(dict.fromkeys(self._notes)),
        )

    def note(self, place: str, text: str) -> None:
        self._notes.append(f"{place}: {text}")

    def _read_simple(self, config: Mapping[str, Any]) -> None:
        """An app without a graph: chat, agent-chat, completion."""
        place = self._name or self._mode
        image = _at(config, "file_upload", "image", "enabled") is True
        self._datasets(_at(config, "dataset_configs"), place)
        prompt = read_prompt(config, self._mode)
        self._add("app", place, self._mode, config["model"], prompt, vision=image)

    def _read_node(self, node: Mapping[str, Any]) -> None:
        data = node["data"]
        kind = _text(data.get("type"))
        place = _text(data.get("title")) or _text(node.get("id")) or kind
        node_id = _text(node.get("id"))
        if kind == "agent":
            model = _at(data, "agent_parameters", "model", "value")
        elif kind == "tool":
            model = _at(data, "tool_configurations", "model", "value")
        else:
            model = data.get("model")
        if isinstance(model, Mapping) and model:
            vision = data.get("vision")
            enabled = _at(data, "vision", "enabled") is True
            selector = _at(vision, "configs", "variable_selector") if enabled else None
            prompt = read_prompt(data, kind)
            schema = _schema(data, kind)
            self._add(node_id, place, kind, model, prompt, vision=enabled, selector=selector, schema=schema)
        self._datasets(data, place)
        for key in ("single_retrieval_config", "metadata_model_config"):
            inner = data.get(key)
            found = _at(inner, "model") or (inner if _at(inner, "provider") else None)
            if isinstance(found, Mapping) and found:
                self._add(node_id, place, kind, found, Prompt())

    def _add(
        self,
        node_id: str,
        place: str,
        kind: str,
        model: Any,
        prompt: Prompt,
        *,
        vision: bool = False,
        selector: Any = None,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, Mapping):
            self.note(place, _("the model is written in a way that Dify does not use; left out"))
            return
        provider = _text(model.get("provider"))
        name = _text(model.get("name") or model.get("model"))
        if (provider or "ollama") not in _OLLAMA:
            self.note(
                place,
                _("model {model} of provider {provider}, not Ollama; left out").format(
                    model=name, provider=provider
                ),
            )
            return
        if not name:
            self.note(place, _("no model is named; left out"))
            return
        if not provider:
            self.note(
                place, _("no provider is named; {model} is taken for an Ollama model").format(model=name)
            )
        params = model.get("completion_params")
        values, unknown = settings_from_completion_params(params if isinstance(params, Mapping) else {})
        for parameter in unknown:
            self.note(place, _("unknown parameter {name}; left out").format(name=parameter))
        for text in prompt.notes:
            self.note(place, text)
        self._nodes.append(
            DifyNode(
                node_id,
                place,
                kind,
                name,
                "completion" if model.get("mode") == "completion" else "chat",
                values,
                prompt.messages,
                prompt.variables,
                prompt.memory,
                prompt.memory_window,
                vision,
                ".".join(map(_text, selector)) if isinstance(selector, Sequence) and selector else None,
                schema,
            )
        )

    def _datasets(self, data: Any, place: str) -> None:
        """Embedding and rerank models that a retrieval names."""
        retrieval = _at(data, "multiple_retrieval_config") or data
        vectors = _at(retrieval, "weights", "vector_setting")
        self._add_model(
            "embedding", place, _at(vectors, "embedding_provider_name"), _at(vectors, "embedding_model_name")
        )
        for key in ("reranking_model", "rerank_model"):
            rerank = _at(retrieval, key)
            named = _at(rerank, "model") or _at(rerank, "reranking_model_name")
            provider = _at(rerank, "provider") or _at(rerank, "reranking_provider_name")
            self._add_model("rerank", place, provider, named)

    def _add_model(self, kind: ModelKind, place: str, provider: Any, model: Any) -> None:
        if not _text(model):
            return
        if _text(provider) in _OLLAMA:
            self._models[DifyModel(_text(model), kind, place)] = None
        else:
            self.note(
                place,
                _("model {model} of provider {provider}, not Ollama; left out").format(
                    model=_text(model), provider=_text(provider) or "?"
                ),
            )


def _nodes(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    nodes = _at(data, "workflow", "graph", "nodes")
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, Mapping) and isinstance(node.get("data"), Mapping):
            yield node


def _schema(data: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The JSON schema of a node's answer: its structured output, or the parameters it extracts."""
    if kind == "parameter-extractor":
        rows = [row for row in data.get("parameters") or () if isinstance(row, Mapping) and row.get("name")]
        if not rows:
            return None
        return {
            "type": "object",
            "properties": {_text(row["name"]): _parameter(row) for row in rows},
            "required": [_text(row["name"]) for row in rows if row.get("required") is True],
        }
    output = data.get("structured_output")
    if data.get("structured_output_enabled") is not True or not isinstance(output, Mapping):
        return None
    schema = output.get("schema", output)
    return schema if isinstance(schema, Mapping) and schema else None


def _parameter(row: Mapping[str, Any]) -> dict[str, Any]:
    kind = _text(row.get("type")) or "string"
    about = {"description": _text(row.get("description"))} if row.get("description") else {}
    if kind == "select" and isinstance(row.get("options"), list):
        return {"type": "string", "enum": [_text(option) for option in row["options"]], **about}
    if kind.startswith("array"):
        inner = kind.partition("[")[2].rstrip("]") or "string"
        return {"type": "array", "items": {"type": _json_type(inner)}, **about}
    return {"type": _json_type(kind), **about}


def _json_type(kind: str) -> str:
    known = {"string", "number", "boolean", "object", "integer"}
    return kind if kind in known else {"bool": "boolean"}.get(kind, "string")


def _at(value: Any, *keys: str) -> Any:
    """What stands under these keys; None where something on the way is missing or no mapping."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, Mapping | list) else str(value).strip()
