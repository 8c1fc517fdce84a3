"""Reading an export: models, settings, prompts, and notes on what is not taken over."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from ollama_dify import ConfigurationError, DifyAppError, OllamaError, load_dify_app
from ollama_dify.settings.dify_app import DifyApp

from .exports import OLLAMA, graph, model, node, simple


def load(export: Any) -> DifyApp:
    return load_dify_app(yaml.safe_dump(export, allow_unicode=True))


ASK = [{"role": "system", "text": "Speak of {{#1711.topic#}}."}, {"role": "user", "text": "{{#sys.query#}}"}]


def asks(text: str, role: str = "user") -> list[dict[str, str]]:
    return [{"role": role, "text": text}]


def jinja(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "edition_type": "jinja2", "jinja2_text": text, "text": "old"}]


def llm(**data: Any) -> dict[str, Any]:
    return node("llm", **{"model": model(), "prompt_template": ASK, **data})


# id → (export, messages as (role, text), variables, memory, vision, schema)
PROMPTS: dict[str, tuple[Any, list[tuple[str, str]], dict[str, str]]] = {
    "an LLM node": (
        graph(llm()),
        [("system", "Speak of {{#1711.topic#}}."), ("user", "{{#sys.query#}}")],
        {"topic": "1711.topic", "query": "sys.query"},
    ),
    "one mapping as the template": (
        graph(llm(prompt_template={"text": "{{#histories#}} Q: {{#conversation.name#}}"})),
        [("user", "{{#histories#}} Q: {{#conversation.name#}}")],
        {"histories": "histories", "name": "conversation.name"},
    ),
    "memory: messages, history, question": (
        graph(
            llm(memory={"window": {"enabled": True, "size": 5}, "query_prompt_template": "Q {{#sys.query#}}"})
        ),
        [*((m["role"], m["text"]) for m in ASK), ("history", ""), ("user", "Q {{#sys.query#}}")],
        {"topic": "1711.topic", "query": "sys.query"},
    ),
    "context under its own name": (
        graph(
            llm(
                context={"enabled": True, "variable_selector": ["1733", "result"]},
                prompt_template=asks("{{#context#}} {{#env.KEY#}}"),
            )
        ),
        [("user", "{{#context#}} {{#env.KEY#}}")],
        {"context": "1733.result", "KEY": "env.KEY"},
    ),
    "context under both its names": (
        graph(
            llm(
                context={"enabled": True, "variable_selector": ["1733", "result"]},
                prompt_template=asks("{{#context#}} {{#1733.result#}}"),
            )
        ),
        [("user", "{{#context#}} {{#1733.result#}}")],
        {"context": "1733.result", "result": "1733.result"},
    ),
    "two variables of one name": (
        graph(
            llm(
                prompt_template=[
                    {"role": "user", "text": "{{#1.topic#}}{{#2.topic#}}{{#3.a.topic#}}{{#1.topic#}}"}
                ]
            )
        ),
        [("user", "{{#1.topic#}}{{#2.topic#}}{{#3.a.topic#}}{{#1.topic#}}")],
        {"topic": "1.topic", "topic_2": "2.topic", "topic_3_a": "3.a.topic"},
    ),
    "names no identifier can have": (
        graph(
            llm(
                prompt_template=[
                    {"role": "user", "text": "{{#1.主題#}} {{#1.a b#}} {{#1.2#}} {{#9.history#}}"}
                ]
            )
        ),
        [("user", "{{#1.主題#}} {{#1.a b#}} {{#1.2#}} {{#9.history#}}")],
        {"variable_2": "1.主題", "a_b": "1.a b", "variable_3": "1.2", "history_9": "9.history"},
    ),
    "literal braces are text": (
        graph(llm(prompt_template=asks('Write {"a": {b}} or {{topic}} {{#1.b#}}'))),
        [("user", 'Write {"a": {b}} or {{topic}} {{#1.b#}}')],
        {"b": "1.b"},
    ),
    "Jinja with plain variables": (
        graph(
            llm(
                prompt_template=jinja("Say {{ it }}"),
                prompt_config={"jinja2_variables": [{"variable": "it", "value_selector": ["1711", "topic"]}]},
            )
        ),
        [("user", "Say {{ it }}")],
        {"topic": "1711.topic"},
    ),
    "a classifier": (
        graph(
            node(
                "question-classifier",
                model=model(),
                instruction="Sort {{#1.x#}}",
                query_variable_selector=["1711", "q"],
                classes=[{"id": "1", "name": "Billing"}],
            )
        ),
        [("system", "Sort {{#1.x#}}"), ("user", "{{#1711.q#}}")],
        {"x": "1.x", "q": "1711.q"},
    ),
    "an agent whose model has no provider": (
        graph(
            node(
                "agent",
                agent_parameters={
                    "model": {"type": "constant", "value": {"model": "qwen3", "completion_params": {}}},
                    "instruction": {"type": "constant", "value": "Be brief."},
                    "query": {"type": "constant", "value": "{{#sys.query#}}"},
                    "tools": {"type": "constant", "value": [{"tool_name": "search"}]},
                },
            )
        ),
        [("system", "Be brief."), ("user", "{{#sys.query#}}")],
        {"query": "sys.query"},
    ),
    "a chat app": (
        simple(pre_prompt="You are {{role}}.", user_input_form=[{"text-input": {"variable": "role"}}]),
        [("system", "You are {{role}}."), ("history", ""), ("user", "{{#sys.query#}}")],
        {"role": "role", "query": "sys.query"},
    ),
    "a completion app": (
        simple("completion", pre_prompt="Translate {{query}}"),
        [("user", "Translate {{query}}")],
        {"query": "query"},
    ),
    "a chat app in expert mode": (
        simple(
            prompt_type="advanced",
            chat_prompt_config={"prompt": [{"role": "system", "text": "Hi {{#context#}}"}]},
        ),
        [("system", "Hi {{#context#}}")],
        {"context": "context"},
    ),
}


@pytest.mark.parametrize(("export", "messages", "variables"), PROMPTS.values(), ids=PROMPTS)
def test_a_node_keeps_order_roles_and_variables(
    export: Any, messages: list[tuple[str, str]], variables: dict[str, str]
) -> None:
    (found,) = load(export).nodes
    assert [(message.role, message.text) for message in found.messages] == messages
    assert found.variables == variables
    marks = {name: f"<{selector}>" for name, selector in variables.items()}
    for message in found.messages:
        text = message.text
        for name, selector in variables.items():
            for written in (f"{{{{#{selector}#}}}}", f"{{{{{selector}}}}}", "{{ it }}"):
                text = text.replace(written, marks[name])
            if name == "context":
                text = text.replace("{{#context#}}", marks[name])
        assert message.filled(marks) == text


def test_settings_hold_the_parameters_and_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    params = {
        "temperature": 0.2,
        "num_ctx": "8192",
        "num_predict": 100,
        "think_level": "high",
        "stop": ["END"],
    }
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    vision = {"enabled": True, "configs": {"detail": "high", "variable_selector": ["sys", "files"]}}
    (found,) = load(
        graph(
            llm(
                model=model("llava", "ollama", **params),
                vision=vision,
                structured_output_enabled=True,
                structured_output={"schema": schema},
            )
        )
    ).nodes
    assert (found.vision, found.vision_variable) == (True, "sys.files")
    settings = found.settings()
    assert settings.base_url is None
    assert (settings.model, settings.context_size, settings.num_predict) == ("llava", 8192, 100)
    assert (settings.temperature, settings.think, settings.stop) == (0.2, "high", ["END"])
    assert settings.vision_support is True
    assert settings.format == schema
    assert found.settings(base_url="http://127.0.0.1:1", temperature=1).address.url == "http://127.0.0.1:1"


def test_extracted_parameters_become_a_schema() -> None:
    rows = [
        {"name": "city", "type": "string", "description": "Where", "required": True},
        {"name": "days", "type": "number"},
        {"name": "kind", "type": "select", "options": ["a", "b"]},
        {"name": "tags", "type": "array[string]"},
        {"name": "mood", "type": "select"},
    ]
    (found,) = load(
        graph(node("parameter-extractor", model=model(), parameters=rows, query=["sys", "query"]))
    ).nodes
    assert found.schema == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "days": {"type": "number"},
            "kind": {"type": "string", "enum": ["a", "b"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "mood": {"type": "string"},
        },
        "required": ["city"],
    }
    assert [message.text for message in found.messages] == ["{{#sys.query#}}"]
    empty = llm(structured_output_enabled=True, structured_output={"schema": {}})
    assert load(graph(empty)).nodes[0].schema is None


RETRIEVAL = {
    "multiple_retrieval_config": {
        "reranking_model": {"provider": OLLAMA, "model": "qwen3-reranker"},
        "weights": {
            "vector_setting": {
                "embedding_provider_name": "ollama",
                "embedding_model_name": "nomic-embed-text",
            }
        },
    },
    "single_retrieval_config": {"model": model("qwen3")},
    "metadata_model_config": model("llama3.2"),
}


def test_every_place_that_names_a_model_is_read() -> None:
    app = load(
        graph(
            node("knowledge-retrieval", "KB", **RETRIEVAL),
            node("tool", "Tool", "9", tool_configurations={"model": {"value": model("gemma3")}}),
            node("tool", "Painter", "10", tool_configurations={"model": {"value": "dall-e-3"}}),
        )
    )
    assert [(each.title, each.model) for each in app.nodes] == [
        ("KB", "qwen3"),
        ("KB", "llama3.2"),
        ("Tool", "gemma3"),
    ]
    assert [each.model for each in app.embeddings] == ["nomic-embed-text"]
    assert [each.model for each in app.rerankers] == ["qwen3-reranker"]
    assert not any(note.startswith("Painter") for note in app.notes)


NOTES: dict[str, tuple[Any, str]] = {
    "another provider": (graph(llm(model=model("gpt-4o", "openai"))), "gpt-4o of provider openai"),
    "an unknown parameter": (graph(llm(model=model(foo=1))), "unknown parameter foo"),
    "a Jinja prompt with logic": (
        graph(llm(prompt_template=jinja("{% if a %}b{% endif %}"))),
        "Jinja",
    ),
    "no user message": (graph(llm(prompt_template=[{"role": "system", "text": "Hi"}])), "no user message"),
    "a strange role": (graph(llm(prompt_template=[{"role": "tool", "text": "Hi"}])), "unknown role tool"),
    "classes": (graph(node("question-classifier", model=model(), classes=[{"name": "A"}])), "classes are: A"),
    "an agent's tools": (
        graph(node("agent", agent_parameters={"model": {"value": model()}, "tools": {"value": [1]}})),
        "tools of this agent",
    ),
    "no provider": (graph(llm(model=model(provider=None))), "no provider"),
    "another provider's reranker": (
        graph(
            node(
                "knowledge-retrieval",
                multiple_retrieval_config={"reranking_model": {"provider": "x", "model": "r"}},
            )
        ),
        "r of provider x",
    ),
}


@pytest.mark.parametrize(("export", "words"), NOTES.values(), ids=NOTES)
def test_what_is_not_taken_over_is_noted(export: Any, words: str) -> None:
    assert any(words in note for note in load(export).notes), load(export).notes


ODD = {
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "JSON": lambda text: json.dumps(yaml.safe_load(text)),
    "no kind": lambda text: text.replace("kind: app\n", ""),
    "no version": lambda text: text.replace("version: 0.6.0\n", ""),
    "numbers as ids": lambda text: text.replace("id: '1722'", "id: 1722"),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_odd_exports_are_read(change: Any, tmp_path: Path) -> None:
    data = change(yaml.safe_dump(graph(llm()), allow_unicode=True))
    path = tmp_path / "app.yml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    for app in (load_dify_app(data), load_dify_app(path), load_dify_app(str(path))):
        assert [(each.id, each.model) for each in app.nodes] == [("1722", "llava")]


REFUSED: dict[str, tuple[Any, str]] = {
    "empty": ("", "no mapping"),
    "a list": ("- 1", "no mapping"),
    "other YAML": ("a: 1", "no export"),
    "another kind": ("kind: dataset\napp: {}\nworkflow: {}", "no export"),
    "broken YAML": ("a: [", "no YAML"),
    "a tag that runs code": ("!!python/object/apply:os.system ['true']", "no YAML"),
    "a bomb of aliases": ("a: &a [1, 2]\nb: [*a, *a]", "alias"),
    "deep": ("[" * 5000, "no YAML|deep"),
    "deep but closed": ("[" * 100 + "]" * 100, "deep"),
    "bytes that are no text": (b"\xff\xfe\x00\x00\xff", "no YAML|no mapping|no export"),
    "a date that is none": ("a: 2024-13-45", "no YAML|no export"),
    "an unhashable key": ("? {a: 1}\n: 2", "no YAML"),
    "too large": ("a" * (4 << 20) + "bc\n", "MiB"),
    "a path that is missing": (Path("missing.yml"), "cannot be read"),
    "a number": (5, "takes a path"),
}


@pytest.mark.parametrize(("source", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_export_is_one_error(source: Any, words: str) -> None:
    with pytest.raises(DifyAppError, match=words) as caught:
        load_dify_app(source)
    assert isinstance(caught.value, ConfigurationError)


def test_no_foreign_error_comes_of_a_spoilt_export() -> None:
    """Random changes of a rich export, and random values in the places of others."""
    rich = graph(
        *(each["workflow"]["graph"]["nodes"][0] for each, *_ in PROMPTS.values() if "workflow" in each)
    )
    values: list[Any] = [None, True, 5, -1.5, "", "x", [], {}, [1], {"a": 1}, [["sys", "query"]], "{{#a.b#}}"]
    rng = random.Random(7)

    def spoil(value: Any) -> Any:
        if rng.random() < 0.05:
            return rng.choice(values)
        if isinstance(value, dict):
            return {key: spoil(item) for key, item in value.items() if rng.random() > 0.03}
        return [spoil(item) for item in value] if isinstance(value, list) else value

    read = 0
    for _ in range(300):
        try:
            for found in load(spoil(rich)).nodes:
                read += 1
                found.settings()
        except OllamaError:
            continue
    assert read > 100
