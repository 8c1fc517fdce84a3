"""Exports of Dify apps for the fuzzer: what it begins with, how they are changed, and what must hold."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import yaml
from tests.settings import exports

import langchain_ollama_dify
import llamaindex_ollama_dify
from ollama_dify import OllamaError, load_dify_app

__all__ = ["APPS", "fuzz_app", "mutate_app"]

_PROMPT = [
    {"role": "system", "text": "Say {{#1711.topic#}} and {this}", "edition_type": "basic"},
    {"role": "user", "text": "{{#sys.query#}} {{#context#}} {{#conversation.a#}}"},
    {"role": "user", "edition_type": "jinja2", "jinja2_text": "{{ x }}", "text": ""},
]
_LLM = exports.node(
    "llm",
    model=exports.model(temperature=0.5, num_ctx="4096", format="json", keep_alive="-1", think_level="x"),
    prompt_template=_PROMPT,
    memory={"window": {"enabled": True, "size": 3}, "query_prompt_template": "{{#sys.query#}}"},
    vision={"enabled": True, "configs": {"variable_selector": ["sys", "files"], "detail": "high"}},
    structured_output={"schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
    structured_output_enabled=True,
    context={"enabled": True, "variable_selector": ["1", "result"]},
)
_CLASSIFIER = exports.node(
    "question-classifier",
    classes=[{"id": "1", "name": "A"}],
    instructions="{{#1.a#}}",
    model=exports.model(),
    query_variable_selector=["1", "q"],
)
_EXTRACTOR = exports.node(
    "parameter-extractor",
    parameters=[{"name": "a", "type": "string", "required": True}],
    model=exports.model(),
    query=["1", "q"],
    reasoning_mode="prompt",
)
_AGENT = exports.node(
    "agent", agent_parameters={"model": {"value": exports.model()}, "query": {"value": "{{#1.q#}}"}}
)
_RETRIEVAL = exports.node(
    "knowledge-retrieval",
    multiple_retrieval_config={
        "reranking_model": {"provider": exports.OLLAMA, "model": "r"},
        "weights": {
            "vector_setting": {"embedding_provider_name": exports.OLLAMA, "embedding_model_name": "e"}
        },
    },
)
_WORDS = {"prompt": {"text": "{{#query#}}"}}
_EXPORTS = (
    exports.simple(pre_prompt="Hi {{name}}, {{#histories#}}", dataset_configs={"datasets": {"datasets": []}}),
    exports.simple("completion", prompt_type="advanced", completion_prompt_config=_WORDS),
    exports.simple("agent-chat", chat_prompt_config={"prompt": [{"role": "system", "text": "{{a}}"}]}),
    exports.graph(_LLM, _CLASSIFIER),
    exports.graph(_EXTRACTOR, _AGENT, _RETRIEVAL),
)
APPS = [yaml.safe_dump(export, allow_unicode=True).encode() for export in _EXPORTS]

_VALUES: list[Any] = [
    *("", "4096", "-1", " x ", "\0", "\ud800", "9" * 400, "json", '{"type":"object"}', "5m", "chat", "true"),
    *("{{#1.a#}}", "{{#", "{{", "{", "{%", "{{#a.b.c#}}" * 50, "{{ x.y }}", "{{#1.ä b#}}", "system", "llm"),
    *(None, True, False, 0, -1, 5, 1.5, 10**30, float("nan")),
    *([], {}, ["a"], [None], [[]], {"a": None}, {1: 2}, ["1", "q"], {"value": {}}, [{"role": "user"}]),
]


def fuzz_app(data: bytes) -> None:
    """What loads gives settings and the templates of both frameworks, or one of our errors."""
    try:
        app = load_dify_app(data)
    except OllamaError as error:
        str(error)
        return
    for node in app.nodes:
        with contextlib.suppress(OllamaError):
            node.settings(base_url="http://h")
        with contextlib.suppress(OllamaError):
            langchain_ollama_dify.prompt_template(node)
        with contextlib.suppress(OllamaError):
            llamaindex_ollama_dify.prompt_template(node)


def mutate_app(
    data: bytes,
    others: list[bytes],
    chance: random.Random,
    mutate: Callable[[bytes, list[bytes], random.Random], bytes],
) -> bytes:
    """Other values anywhere in the export; sometimes other bytes. mutate: changes bytes."""
    try:
        export = yaml.safe_load(data)
    except Exception:  # whatever a broken text provokes
        export = None
    if not isinstance(export, dict | list) or not export or chance.random() < 0.2:
        return mutate(data, others, chance)
    for _ in range(1 + int(chance.expovariate(0.6))):
        _change(export, others, chance, mutate)
        if len(export) == 0:
            break
    try:
        return yaml.safe_dump(export, allow_unicode=True).encode("utf-8", "surrogatepass")
    except Exception:  # a text that YAML cannot write
        return mutate(data, others, chance)


def _change(at: Any, others: list[bytes], chance: random.Random, mutate: Callable[..., bytes]) -> None:
    """Change one value, often deep inside."""
    while True:
        key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.15:
            break
        at = inner
    what = chance.random()
    if what < 0.2:
        del at[key]
    elif what < 0.4 and isinstance(inner, str):
        at[key] = mutate(inner.encode("utf-8", "replace"), others, chance).decode("utf-8", "replace")
    else:
        at[key] = chance.choice(_VALUES)
