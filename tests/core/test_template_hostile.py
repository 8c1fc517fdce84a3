"""Templates that mean no good or nothing: the bound stays, from the literal text, without much work."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_dify.tokens.chat_bound import ChatOverhead
from ollama_dify.tokens.templates.prompt_template import template_of
from ollama_dify.tokens.templates.rendering import Work

from .test_chat_tokens import tokenizer

MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
M = "{{ range .Messages }}{{ .Content }}{{ end }}"
ENDLESS = "{{ range .Messages }}" + "{{ range $.Messages }}" * 25 + "x" + "{{ end }}" * 26
FOR = "{% for i in range(900) %}"
TEMPLATES = {
    "go-nested-loops": ENDLESS,
    "go-counts": M + "{{ range $i := 100000 }}{{ range $j := 100000 }}x{{ end }}{{ end }}",
    "go-deep": M + "{{ if true }}" * 5000 + "{{ end }}" * 5000,
    "go-parentheses": M + "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "go-calls-itself": '{{ define "a" }}{{ template "a" . }}{{ template "a" . }}{{ end }}{{ template "a" . }}'
    + M,
    "go-doubles": M + '{{ $x := "abcdefgh" }}' + '{{ $x = printf "%s%s" $x $x }}' * 40 + "{{ $x }}",
    "go-function": M + "{{ system `rm` }}",
    "go-field": M + "{{ (index .Messages 0).Password }}",
    "go-method": M + "{{ .Messages.Delete }}",
    "go-open": M + "{{ if true }}",
    "go-unclosed": M + "{{ .System",
    "go-sign": M + "{{ 'x' }}",
    "go-end": M + "{{ end }}",
    "go-range-of-text": M + "{{ range .System.X }}{{ end }}",
    "go-format": M + '{{ printf "%1000000000d" 1 }}',
    "jinja-nested-loops": FOR * 6 + "x" + "{% endfor %}" * 6,
    "jinja-range": "{% for i in range(10**9) %}{% endfor %}",
    "jinja-range-of-billions": "{% for i in range(1000000000) %}{% endfor %}",
    "jinja-doubles": "{% set ns = namespace(x='abcdefgh') %}{% for i in range(60) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "jinja-times": "{{ 'x' * 1000000000 }}",
    "jinja-format": "{{ '%1000000000d' % 1 }}",
    "jinja-lists": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "jinja-long-lists": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}",
    "jinja-replace": "{% set x = 'a' * 1 %}{{ ('a,' | replace(',', 'aaaa' | indent(100000000))) }}",
    "jinja-itself": "{% set x = [] %}{% set y = x.append(x) %}{{ x | tojson }}{{ x == [x] }}",
    "jinja-macro": "{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}",
    "jinja-deep": "{% if true %}" * 5000 + "{% endif %}" * 5000,
    "jinja-parentheses": "{% if " + "(" * 5000 + "1" + ")" * 5000 + " %}{% endif %}",
    "jinja-not": "{% if " + "not " * 5000 + "x %}{% endif %}",
    "jinja-underscores": "{% if true %}{{ ''.__class__.__mro__[1].__subclasses__() }}{% endif %}",
    "jinja-import": "{% import 'os' as os %}{{ os }}",
    "jinja-filter": "{% if true %}{{ 'x' | pprint }}{% endif %}",
    "jinja-open": "{% if true %}{{ 'x'",
    "jinja-comment": "{% if true %}{# x",
    "jinja-date": "{% if true %}{{ strftime_now('%H:%M %Z') }}{% endif %}",
    "jinja-number": "{% set ns = namespace(x=9) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "jinja-refuses": "{% if true %}{{ raise_exception('no') }}{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_bound_falls_back(name: str) -> None:
    show = {"template": TEMPLATES[name], "capabilities": ["completion"]}
    read = template_of(show, len)
    assert read is None or read.prompts(MESSAGES, [], None) == []
    counts = tokenizer("tiny-chat")
    bound = ChatOverhead.from_show(show, counts).bound(MESSAGES)
    assert bound.tokens >= counts.count("Hello") + counts.count("Hi")
    assert not bound.exact


def test_the_work_grows_with_the_conversation_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nest of loops stops after the steps that so short a conversation may take."""
    taken: list[int] = []
    step = Work.step

    def counted(self: Work, count: int = 1) -> None:
        taken.append(count)
        step(self, count)

    monkeypatch.setattr(Work, "step", counted)
    for name in ("go-nested-loops", "jinja-nested-loops"):
        taken.clear()
        read = template_of({"template": TEMPLATES[name]}, len)
        assert read is not None
        assert read.prompts(MESSAGES, [], True) == []
        assert len(taken) < 200_000


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": ["a list"]}],
        [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "f", "arguments": "text"}}],
            }
        ],
        [{"role": "user"}],
        [],
    ],
    ids=["content", "arguments", "no-content", "none"],
)
def test_messages_of_another_form_are_bounded_too(messages: list[dict[str, Any]]) -> None:
    bound = ChatOverhead.from_show({"template": M}, tokenizer("tiny-chat")).bound(messages)
    assert bound.tokens >= 0
