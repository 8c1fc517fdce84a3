"""The models a simulated server knows, and what /api/show, /api/tags and /api/ps say of them."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

from . import vocabulary, wire
from .prompts import TemplateStyle

Capability = Literal["completion", "tools", "thinking", "vision", "audio", "image", "embedding", "insert"]
Counting = Literal["bpe", "words"]
DEFAULT_CONTEXT = 4096
DEFAULT_MODIFIED = "2026-01-02T03:04:05.678901234Z"
_NAME = re.compile(r"(?:[\w.-]+(?::\d+)?/)?(?:[\w.-]+/)?[\w.-]+(?::[\w.-]+)?")
_WORDS = re.compile(r"\w+|[^\w\s]")
_LISTS = ("merges", "scores", "token_type", "tokens")
_STOPS = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """One model: `name` with or without a tag, what it can do, and how its prompt is written.

    `template` "native" is a model whose Jinja template llama-server renders: tool calls then come in the
    final chunk; with the others each call is a chunk of its own. `dimensions` is the length of an embedding.
    `counting` "words" stands for a WordPiece vocabulary: words and punctuation. `framed`: the tokenizer puts
    a token before and one after every text, as those of embedding models do.
    `weights` names the file the model shares with others: only one of those is loaded at a time.
    `listed` are the capabilities in /api/tags where they differ from /api/show. `remote_model` and
    `remote_host` are those of a cloud model.
    """

    name: str
    capabilities: Sequence[Capability] = ("completion",)
    template: TemplateStyle = "chatml"
    context_length: int = 32_768
    dimensions: int = 128
    family: str = "llama"
    families: Sequence[str] | None = None
    parameter_size: str = "1.25M"
    quantization: str = "Q4_K_M"
    size: int = 5_032_935
    memory: int | None = None
    digest: str | None = None
    weights: str | None = None
    modified_at: str = DEFAULT_MODIFIED
    parent: str = ""
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    counting: Counting = "bpe"
    listed: Sequence[Capability] | None = None
    model_info: Mapping[str, Any] | None = None
    framed: bool = False
    remote_model: str | None = None
    remote_host: str | None = None

    @property
    def full_name(self) -> str:
        """The name with its tag, as the server lists it."""
        return with_tag(self.name)

    @property
    def weights_key(self) -> str:
        """What the scheduler tells loaded models apart by."""
        return self.full_name if self.weights is None else self.weights

    @property
    def sha256(self) -> str:
        """The digest, derived from name, system text and parameters unless given."""
        if self.digest is not None:
            return self.digest
        return sha256(f"{self.full_name}|{self.system}|{sorted(self.parameters.items())}|{self.capabilities}")

    def can(self, capability: Capability) -> bool:
        """Whether the model has the capability."""
        return capability in self.capabilities

    @property
    def sees(self) -> bool:
        """Whether it has a part that turns images or audio into tokens."""
        return self.can("vision") or self.can("audio")

    @property
    def is_native(self) -> bool:
        """Whether llama-server renders the template and parses the calls."""
        return self.template == "native"

    def count(self, text: str) -> int:
        """Tokens of a text, with those that the tokenizer puts around it."""
        words = self.counting == "words"
        return self.around + (len(_WORDS.findall(text)) if words else vocabulary.count(text))

    @property
    def around(self) -> int:
        """Tokens that the tokenizer puts around every text."""
        return 2 if self.framed else 0

    @property
    def remote(self) -> dict[str, str]:
        """The fields of a cloud model, as answers and lists carry them."""
        fields = {"remote_model": self.remote_model, "remote_host": self.remote_host}
        return {name: value for name, value in fields.items() if value is not None}


@functools.lru_cache(maxsize=1)
def projector() -> Mapping[str, Any]:
    """What /api/show says of the part that turns images into tokens."""
    shown: dict[str, Any] = json.loads(_data("projector.json"))
    return shown


def _data(name: str) -> str:
    return resources.files(__package__).joinpath("data", name).read_text("utf-8")


def default_models() -> list[SimulatedModel]:
    """The models of a server nobody configured."""
    chat: dict[str, Any] = {"parameters": {"stop": list(_STOPS)}}
    embeds: dict[str, Any] = {"template": "prompt", "quantization": "F16", "framed": True}
    return [
        SimulatedModel("llama3.2", ("completion", "tools"), parameter_size="3.2B", **chat),
        SimulatedModel("llava", ("completion", "vision"), parameter_size="7B", **chat),
        SimulatedModel("qwen3", ("completion", "tools", "thinking"), parameter_size="8.2B", **chat),
        SimulatedModel("gemma3", ("completion", "vision"), parameter_size="4.3B", **chat),
        SimulatedModel("qwen3-reranker", parameter_size="595.78M", **chat),
        SimulatedModel(
            "nomic-embed-text",
            ("embedding",),
            context_length=2048,
            dimensions=768,
            family="nomic-bert",
            parameter_size="137M",
            **embeds,
        ),
        SimulatedModel(
            "all-minilm",
            ("embedding",),
            context_length=512,
            dimensions=384,
            family="bert",
            parameter_size="22.57M",
            **embeds,
        ),
    ]


def with_tag(name: str) -> str:
    """`m` → `m:latest`."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def is_valid_name(name: str) -> bool:
    """Whether the server would take the text as a model's name."""
    bare = re.sub(r"^https?://", "", name)
    return _NAME.fullmatch(bare) is not None


def registry_name(name: str) -> str:
    """`m` → `registry.ollama.ai/library/m:latest`, as some of the server's errors write it."""
    return f"registry.ollama.ai/library/{with_tag(name)}"


def sha256(text: str) -> str:
    """A digest as the server shows it."""
    return hashlib.sha256(text.encode()).hexdigest()


def _details(model: SimulatedModel) -> dict[str, Any]:
    return {
        "parent_model": model.parent,
        "format": "gguf",
        "family": model.family,
        "families": [model.family] if model.families is None else list(model.families),
        "parameter_size": model.parameter_size,
        "quantization_level": model.quantization,
    }


def tag_entry(model: SimulatedModel, *, listed: bool) -> dict[str, Any]:
    """One line of /api/tags; `listed` is whether this version tells capabilities there."""
    details = _details(model)
    if listed and model.family != "bert":
        details |= {"context_length": model.context_length, "embedding_length": model.dimensions}
    entry: dict[str, Any] = {
        "name": model.full_name,
        "model": model.full_name,
        "modified_at": model.modified_at,
        "size": model.size,
        "digest": model.sha256,
        "details": details,
        **model.remote,
    }
    if listed:
        entry["capabilities"] = list(model.capabilities if model.listed is None else model.listed)
    return entry


def ps_entry(model: SimulatedModel, *, context: int, expires_at: str) -> dict[str, Any]:
    """One line of /api/ps."""
    memory = model.size + 4096 * context if model.memory is None else model.memory
    return {
        "name": model.full_name,
        "model": model.full_name,
        "size": memory,
        "digest": model.sha256,
        "details": _details(model),
        "expires_at": expires_at,
        "size_vram": 0,
        "context_length": context,
    }


def show(model: SimulatedModel, *, verbose: bool) -> dict[str, Any]:
    """The /api/show answer."""
    answer: dict[str, Any] = {"modelfile": f"# FROM {model.full_name}\n"}
    if model.parameters:
        answer["parameters"] = _parameter_table(model.parameters)
    answer["template"] = template_text(model.template)
    if model.system is not None:
        answer["system"] = model.system
    answer["details"] = _details(model)
    answer["model_info"] = _model_info(model, verbose=verbose)
    if model.sees:
        answer["projector_info"] = dict(projector())
    answer["tensors"] = []
    answer["capabilities"] = list(model.capabilities)
    answer |= model.remote
    answer["modified_at"] = model.modified_at
    return answer


@functools.lru_cache(maxsize=8)
def template_text(style: TemplateStyle) -> str:
    """The template as /api/show hands it out."""
    if style == "prompt":
        return "{{ .Prompt }}"
    if style == "fim":
        return _data("plain.gotmpl").replace(".Content", ".Content | fill")
    return _data("native.jinja" if style == "native" else f"{style}.gotmpl")


def _model_info(model: SimulatedModel, *, verbose: bool) -> dict[str, Any]:
    entries = _architecture(model) if model.model_info is None else dict(model.model_info)
    if model.counting == "bpe":
        entries |= vocabulary.vocabulary()
        entries |= (
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
            if model.framed
            else {}
        )
    if not verbose:
        hidden = {f"tokenizer.ggml.{name}" for name in _LISTS}
        entries = {key: None if key in hidden else value for key, value in entries.items()}
    return dict(sorted(entries.items()))


def _architecture(model: SimulatedModel) -> dict[str, Any]:
    family = model.family
    return {
        "general.architecture": family,
        "general.file_type": 0,
        "general.parameter_count": 1_246_336,
        "general.quantization_version": 2,
        f"{family}.attention.head_count": 4,
        f"{family}.block_count": 4,
        f"{family}.context_length": model.context_length,
        f"{family}.embedding_length": model.dimensions,
    }


def _parameter_table(parameters: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for name, value in sorted(parameters.items()):
        for one in value if isinstance(value, (list, tuple)) else [value]:
            lines.append(f"{name:<30} {wire.quoted(one) if isinstance(one, str) else one}")
    return "\n".join(lines)
