"""A Dify app export (DSL, YAML): the Ollama models in it, their settings and prompts.

    app = load_dify_app("support.yml")
    for node in app.nodes:
        print(node.title, node.settings(base_url="http://gpu:11434"), node.variables)

Nothing is executed. An export has no address and no key, so settings take `base_url` from the caller
or from `OLLAMA_HOST`. `app.notes` lists what was ignored. The supported shapes are those of 320 exports in
public repositories, versions 0.1.0 to 0.6.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigurationError, DifyAppError
from ..language import _
from .dify_form import settings_from_completion_params
from .dify_prompt import DifyMessage, at, read_prompt, rows_at, selector_text
from .model import ChatSettings

__all__ = ["DifyApp", "DifyModel", "DifyNode", "load_dify_app"]

MAX_BYTES = 4 * 1024 * 1024
"""The largest known export has 155 kB."""

_MAX_DEPTH = 60
_OLLAMA = ("ollama", "langgenius/ollama/ollama")

_JSON_TYPES = {"bool": "boolean", **{name: name for name in ("number", "boolean", "object", "integer")}}

ModelKind = Literal["embedding", "rerank"]
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DifyModel:
    """An embedding or rerank model that the app names. place: the title of the node that names it."""

    model: str
    kind: ModelKind
    place: str


@dataclass(frozen=True, slots=True)
class DifyNode:
    """A node of the app that calls a chat or completion model.

    kind: Dify's type of the node ("llm", "question-classifier", …), or the app's mode if it has no graph.
    parameters: settings that `completion_params` set, by our names.
    messages: the prompt, in order; empty if the export has none.
    variables: the prompt's variables as {name: selector}: `{"topic": "1711.topic"}`.
    memory: whether earlier turns are sent; memory_window: how many at most, None for all.
    vision: whether images are sent; vision_variable: the selector of the images.
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
        """The settings of this node's model; changes: missing values, such as base_url, or overrides.

        Raises ConfigurationError for a value of the export that Ollama does not accept.
        """
        values: dict[str, Any] = {"model": self.model, "mode": self.mode, **self.parameters}
        if self.vision:
            values["vision_support"] = True
        if self.schema is not None:
            values["format"] = dict(self.schema)
        return ChatSettings(**{**values, **changes})


@dataclass(frozen=True, slots=True)
class DifyApp:
    """The Ollama models of an export. notes: what was ignored, in the current language."""

    name: str
    mode: str
    nodes: tuple[DifyNode, ...]
    embeddings: tuple[DifyModel, ...]
    rerankers: tuple[DifyModel, ...]
    notes: tuple[str, ...]


def load_dify_app(source: Path | str | bytes) -> DifyApp:
    """Read an export.

    source: a path, the path as text (one line that ends in .yml, .yaml or .json), or the export's own text or
    bytes. Raises DifyAppError if it is not an export; ConfigurationError if PyYAML is missing.
    """
    data = _parse(_bytes_of(source))
    app = data.get("app")
    has_content = any(isinstance(data.get(key), Mapping) for key in ("model_config", "workflow"))
    if not isinstance(app, Mapping) or not has_content or data.get("kind", "app") != "app":
        raise DifyAppError(
            "This is no export of a Dify app: it lacks `app` with `model_config` or `workflow`.",
            hint=_("In Dify, open the app's menu and choose “Export DSL”; then pass that file."),
        )
    name, mode = _text(app.get("name")), _text(app.get("mode")) or "workflow"
    nodes: list[DifyNode] = []
    models: dict[DifyModel, None] = {}
    notes: list[str] = []
    for node_id, title, kind, inner in _places(data, name, mode):
        found: list[str] = []
        nodes += [DifyNode(node_id, title, kind, **values) for values in _read(kind, inner, found.append)]
        models |= {DifyModel(*named, title): None for named in _retrieval_models(inner, found.append)}
        notes += [f"{title}: {text}" for text in found]
    embeddings, rerankers = (
        tuple(model for model in models if model.kind == kind) for kind in ("embedding", "rerank")
    )
    return DifyApp(name, mode, tuple(nodes), embeddings, rerankers, tuple(dict.fromkeys(notes)))


def _bytes_of(source: Path | str | bytes) -> bytes:
    if isinstance(source, str) and "\n" not in source and source.lower().endswith((".yml", ".yaml", ".json")):
        source = Path(source)
    if isinstance(source, Path):
        try:
            with open(source, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            told = f"The export {str(source)!r} cannot be read: {getattr(error, 'strerror', None) or error}."
            raise DifyAppError(told, hint=_("Check the path.")) from error
    elif isinstance(source, str):
        data = source.encode("utf-8", "surrogatepass")
    elif isinstance(source, bytes | bytearray):
        data = bytes(source)
    else:
        raise DifyAppError(f"load_dify_app takes a path, text or bytes, not {type(source).__name__}.")
    if len(data) > MAX_BYTES:
        told = f"The export is over {MAX_BYTES >> 20} MiB; real ones are far smaller."
        raise DifyAppError(told, hint=_("Is this the right file?"))
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
        # PyYAML raises YAMLError, and other errors for a bad date, number or encoding.
        raise DifyAppError(
            f"The export is no YAML that can be read: {' '.join(str(error).split())[:200]}.",
            hint=_("Export the app from Dify once more."),
        ) from error
    if not isinstance(loaded, Mapping):
        raise DifyAppError("The export holds no mapping at its top.")
    return loaded


def _places(
    data: Mapping[str, Any], name: str, mode: str
) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Id, title, kind and data of what may name a model: nodes of the graph, or without a graph the app."""
    if at(data, "model_config", "model"):
        yield "app", name or mode, mode, data["model_config"]
    for node in rows_at(data, "workflow", "graph", "nodes"):
        inner = at(node, "data")
        if isinstance(inner, Mapping):
            node_id, kind = _text(node.get("id")), _text(inner.get("type"))
            yield node_id, _text(inner.get("title")) or node_id or kind, kind, inner


def _read(kind: str, data: Mapping[str, Any], note: Note) -> Iterator[dict[str, Any]]:
    """Arguments of a DifyNode for each Ollama model: the node's own, then the models of its retrieval."""
    place = {"agent": "agent_parameters", "tool": "tool_configurations"}.get(kind)
    model = data.get("model") if place is None else at(data, place, "model", "value")
    # A tool's own parameter may bear that name, such as an image generator's.
    is_none = not model or (kind == "tool" and not isinstance(model, Mapping))
    found = {} if is_none else _read_model(model, note)
    if found:
        vision = at(data, "vision", "enabled") is True
        selector = at(data, "vision", "configs", "variable_selector") if vision else None
        yield {
            **found,
            **read_prompt(data, kind, note),
            "vision": vision or at(data, "file_upload", "image", "enabled") is True,
            "vision_variable": selector_text(selector) or None,
            "schema": _schema(data, kind),
        }
    for key in ("single_retrieval_config", "metadata_model_config"):
        helper = at(data, key, "model") or (data.get(key) if at(data, key, "provider") else None)
        found = _read_model(helper, note) if helper else {}
        if found:
            yield found


def _read_model(model: Any, note: Note) -> dict[str, Any]:
    """Arguments of a DifyNode for a model; empty if it is not an Ollama model."""
    if not isinstance(model, Mapping):
        note(_("the model is written in a way that Dify does not use; left out"))
        return {}
    provider, name = _text(model.get("provider")), _text(model.get("name") or model.get("model"))
    if not _is_ollama(provider or "ollama", name, note):
        return {}
    if not name:
        note(_("no model is named; left out"))
        return {}
    if not provider:
        note(_("no provider is named; {model} is taken for an Ollama model").format(model=name))
    params = model.get("completion_params")
    values, unknown = settings_from_completion_params(params if isinstance(params, Mapping) else {})
    for parameter in unknown:
        note(_("unknown parameter {name}; left out").format(name=parameter))
    mode = "completion" if model.get("mode") == "completion" else "chat"
    return {"model": name, "mode": mode, "parameters": values}


def _retrieval_models(data: Mapping[str, Any], note: Note) -> Iterator[tuple[str, ModelKind]]:
    """Embedding and rerank models that a retrieval names."""
    retrieval = data.get("dataset_configs") or data
    retrieval = at(retrieval, "multiple_retrieval_config") or retrieval
    vectors = at(retrieval, "weights", "vector_setting")
    named: list[tuple[ModelKind, Any, Any]] = [
        ("embedding", at(vectors, "embedding_provider_name"), at(vectors, "embedding_model_name"))
    ]
    for rerank in (at(retrieval, "reranking_model"), at(retrieval, "rerank_model")):
        provider = at(rerank, "provider") or at(rerank, "reranking_provider_name")
        named.append(("rerank", provider, at(rerank, "model") or at(rerank, "reranking_model_name")))
    for kind, provider, model in named:
        if _text(model) and _is_ollama(_text(provider), _text(model), note):
            yield _text(model), kind


def _is_ollama(provider: str, model: str, note: Note) -> bool:
    if provider not in _OLLAMA:
        text = _("model {model} of provider {provider}, not Ollama; left out")
        note(text.format(model=model, provider=provider or "?"))
    return provider in _OLLAMA


def _schema(data: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The JSON schema of a node's answer: its structured output, or the parameters it extracts."""
    if kind == "parameter-extractor":
        rows = [row for row in rows_at(data, "parameters") if at(row, "name")]
        properties = {_text(row["name"]): _parameter(row) for row in rows}
        required = [_text(row["name"]) for row in rows if row.get("required") is True]
        return {"type": "object", "properties": properties, "required": required} if rows else None
    output = data.get("structured_output") if data.get("structured_output_enabled") is True else None
    schema = output.get("schema", output) if isinstance(output, Mapping) else None
    return schema if isinstance(schema, Mapping) and schema else None


def _parameter(row: Mapping[str, Any]) -> dict[str, Any]:
    kind, _bracket, inner = (_text(row.get("type")) or "string").rstrip("]").partition("[")
    about = {"description": _text(row.get("description"))} if row.get("description") else {}
    options = [_text(option) for option in rows_at(row, "options")]
    if kind == "select" and options:
        return {"type": "string", "enum": options, **about}
    if kind == "array":
        return {"type": "array", "items": {"type": _JSON_TYPES.get(inner, "string")}, **about}
    return {"type": _JSON_TYPES.get(kind, "string"), **about}


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, Mapping | list) else str(value).strip()
