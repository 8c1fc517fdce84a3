"""Prompts made here from Jinja templates, against jinja2 with the settings of chat templates."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_dify.tokens.chat_bound import ChatOverhead
from ollama_dify.tokens.templates.jinja_render import JinjaTemplate
from ollama_dify.tokens.templates.prompt_template import PromptTemplate
from ollama_dify.tokens.templates.rendering import NotRendered, Work

from .test_chat_tokens import MODELS, tokenizer
from .test_template_go import CALLED, SYSTEM, TALK, TOOL, USER

jinja2 = pytest.importorskip("jinja2")

LLAMA = """{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|h|>system<|/h|>\\n\\nToday: " + date_string + "\\n" + system_message + "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|h|>' + message['role'] + '<|/h|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{ call.arguments | tojson }}{{- '}<|eot|>' }}
    {%- else %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if tools is not none and tools %}
    {%- for t in tools %}{{ t | tojson(indent=4) }}{{ "\\n\\n" }}{% endfor %}
{%- endif %}
{%- if add_generation_prompt %}{{- '<|h|>assistant<|/h|>\\n\\n' }}{%- endif %}"""
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{% for message in messages %}
    {% if (message['role'] == 'assistant') %}
        {% set role = 'model' %}
    {% else %}
        {% set role = message['role'] %}
    {% endif %}
    {{ '<turn>' + role + '\\n' + message['content'] | trim + '<end>\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{'<turn>model\\n'}}{% endif %}
"""
DEEPSEEK = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(is_first=false, is_tool=false, system='') -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] -%}{%- endif -%}
{%- endfor -%}
{{ bos_token }}{{ ns.system }}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {%- set ns.is_tool = false -%}{{ '<U>' ~ message['content'] }}
  {%- endif -%}
  {%- if message['role'] == 'assistant' -%}
    {%- set content = message['content'] -%}
    {%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1] -%}{%- endif -%}
    {%- for tool in message['tool_calls'] or [] -%}
      {%- if not ns.is_first -%}{{ '<A><calls>' }}{%- set ns.is_first = true -%}{%- endif -%}
      {{ '<call>' + tool['type'] + '<sep>' + tool['function']['name'] + '\\n' }}
    {%- else -%}{{ '<A>' + content + eos_token }}
    {%- endfor -%}
  {%- endif -%}
  {%- if message['role'] == 'tool' -%}
    {%- if ns.is_tool -%}{{ '\\n' }}{%- else -%}{%- set ns.is_tool = true -%}{%- endif -%}
    {{ '<out>' + message['content'] + '</out>' }}
  {%- endif -%}
{%- endfor -%}
{% if add_generation_prompt and not ns.is_tool %}{{ '<A><think>\\n' }}{% endif %}"""
MACROS = """{%- macro typed(schema, name='x') -%}
  {%- if schema.type is string -%}{{ name }}: {{ schema.type | upper }}
  {%- elif schema.type is sequence -%}{{ name }}: {{ schema.type | join('|') }}{%- endif -%}
{%- endmacro -%}
{%- for tool in tools or [] -%}
  {%- for key, value in tool.function.parameters.properties.items() -%}
    {{ typed(value, name=key) }}{{ ", " if not loop.last else ";" }}
  {%- endfor -%}
  {{ tool.function.parameters.required | default([], true) | length }}
{%- endfor %}
{% for message in messages | selectattr('role', 'in', ['user', 'assistant']) if message.content %}
{{ loop.index }}/{{ loop.length }} {{ message.role | title }}: {{ message.content | replace('\\n', ' ') }}
{% endfor %}
{{ messages | map(attribute='role') | unique | list | tojson }} {{ messages[-1].content[:3] | lower }}
{{- (messages | length) // 2 }}{{ 7 % 4 }}{{ 2 * 3 - 1 }}{{ 'a' if false else 'b' }}{{ [1, 2][-1] }}"""
TEMPLATES = {
    "llama": LLAMA,
    "gemma": GEMMA,
    "deepseek": DEEPSEEK,
    "macros": MACROS,
    "qwen": MODELS["tiny-native"]["show"]["template"],
}


def date(form: str) -> str:
    return {"%d %b %Y": "26 Jul 2024"}[form]


def by_jinja2(template: str, names: dict[str, Any]) -> str | None:
    """The text, None where the template refuses."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    try:
        text: str = environment.from_string(template).render(
            **names, raise_exception=refuse, strftime_now=date
        )
    except (jinja2.TemplateError, TypeError):
        return None
    return text


def here(template: str, names: dict[str, Any]) -> str | None:
    try:
        return JinjaTemplate(template).render(names, date, Work(100, 100_000))
    except NotRendered:
        return None


def names_of(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
    names = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
    return {**names, **({"tools": tools} if tools else {})}


ARGUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=5)),
    max_size=3,
)
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", " a ", "<think>\nb\n</think>\n\nc", "{{ x }}", "\n\n", "d\r\n"]
)
CALLS = st.builds(
    lambda name, args: {"type": "function", "function": {"name": name, "arguments": args}}, TEXTS, ARGUMENTS
)
MESSAGES = st.lists(
    st.one_of(
        st.builds(
            lambda role, text: {"role": role, "content": text},
            st.sampled_from(("user", "assistant", "tool")),
            TEXTS,
        ),
        st.builds(
            lambda text, call: {"role": "assistant", "content": text, "tool_calls": [call]}, TEXTS, CALLS
        ),
    ),
    min_size=1,
    max_size=6,
).flatmap(lambda turns: st.sampled_from((turns, [SYSTEM, *turns])))


@pytest.mark.parametrize("name", TEMPLATES)
@given(messages=MESSAGES, tools=st.sampled_from(([], [TOOL], [TOOL, TOOL])))
@settings(deadline=None, max_examples=40)
def test_a_template_says_here_what_it_says_to_jinja2(
    name: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> None:
    names = names_of(messages, tools)
    assert here(TEMPLATES[name], names) == by_jinja2(TEMPLATES[name], names)


@pytest.mark.parametrize(
    "template",
    [
        "a\n{% if true %}\nb\n{% endif %}\nc\n",
        "a\n   {% if true %} b {% endif %}\n c {% if true %}d{% endif %}\n",
        "a\n {%+ if true +%}\n b {%- endif %}  \n c",
        "{# said nowhere #}\na {#- nor this -#} b",
        "{% for i in range(3) %}{{ i }}{% if i == 1 %}{% continue %}{% endif %},{% endfor %}",
        "{% set x %}a{{ 1 }}{% endset %}{{ x * 1 if false else x }}",
        "{% set a, b = [1, 2] %}{{ a + b }}{{ a < b <= 2 }}{{ 'x' in 'xyz' and not 'q' in 'xyz' }}",
        "{% raw %}{{ x }}{% endraw %}{{ {'a': {'b': 1}}['a']['b'] }}{{ '}}' }}",
        "{{ nothing }}{{ nothing is defined }}{{ nothing | default('d') }}{{ none is none }}{{ -2.5 }}",
        "{{ 'a' ~ 1 ~ none }}{{ 'A,B'.split(',')[1].lower() }}{{ [3, 1] | sort | first }}{{ 'ab'[::-1] }}",
        "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{{ loop.first }}{% else %}none{% endfor %}",
        "{% filter upper %}abc{% endfilter %}{{ 'x\\ty' }}{{ \"it's\" }}",
    ],
)
def test_a_statement(template: str) -> None:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    assert here(template, {}) == environment.from_string(template).render()


@given(messages=MESSAGES, tools=st.sampled_from(([], [TOOL])), think=st.sampled_from((None, True, False)))
@settings(deadline=None, max_examples=60)
def test_the_bound_is_not_under_what_jinja2_renders(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], think: bool | None
) -> None:
    show = MODELS["tiny-native"]["show"]
    counts = tokenizer("tiny-native")
    names = {**names_of(messages, []), "enable_thinking": think is not False}
    names["add_generation_prompt"] = messages[-1]["role"] != "assistant"
    # The server drops what no schema of its own holds.
    kept = [{**tool, "function": {**tool["function"]}} for tool in tools]
    for tool in kept:
        parameters = tool["function"]["parameters"]
        properties = {
            key: {word: said for word, said in value.items() if word != "minimum"}
            for key, value in parameters["properties"].items()
        }
        tool["function"]["parameters"] = {
            **{key: parameters[key] for key in ("type", "required")},
            "properties": properties,
        }
    rendered = by_jinja2(show["template"], {**names, **({"tools": kept} if kept else {})})
    assert rendered is not None
    bound = ChatOverhead.from_show(show, counts).bound(messages, tools=tools, think=think).tokens
    # A begun answer is gone on with, without what the template puts behind it.
    true = counts.count(rendered if names["add_generation_prompt"] else rendered.removesuffix("<|im_end|>\n"))
    assert true <= bound
    if messages[-1]["role"] != "assistant":
        assert bound - true <= max(16, true * 0.05)


SHOWN = {
    "capabilities": [],
    "model_info": {"tokenizer.ggml.tokens": ["<s>"], "tokenizer.ggml.bos_token_id": 0},
}


def native(template: str, messages: list[dict[str, Any]], **call: Any) -> list[str]:
    return PromptTemplate({**SHOWN, "template": template}, len).prompts(
        messages, call.get("tools", []), call.get("think")
    )


def test_a_system_text_goes_to_the_user_where_the_template_refuses_it() -> None:
    # Around an output, unlike around a block, white space stays.
    assert native(GEMMA, [SYSTEM, USER]) == ["<s>    <turn>user\nBe brief.\nHi<end>\n\n<turn>model\n"]
    silent = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }};{% endif %}{% endfor %}"
    assert native(silent, [SYSTEM, USER]) == ["Hi;", "Be brief.\nHi;"]


def test_contents_in_parts_and_arguments_as_text() -> None:
    typed = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    assert native(typed, TALK) == ["", "HiYesGo"]
    flat = "{% for c in messages[1].tool_calls %}{{ c.function.arguments }}{% endfor %}"
    assert native(flat, CALLED) == ['{"b":2,"a":"<1>"}']


def test_a_begun_answer_is_counted_both_ways() -> None:
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think></think>{% endif %}"
    )
    assert native(template, TALK[:2]) == [
        "<user>Hi</><assistant>Yes</>",
        "<user>Hi</><assistant><think></think>Yes",
    ]
