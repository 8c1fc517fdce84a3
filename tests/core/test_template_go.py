"""Prompts made here from Go templates of well-known models' shapes, against what Ollama makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_dify.tokens.templates.prompt_template import PromptTemplate

USER: dict[str, Any] = {"role": "user", "content": "Hi"}
TALK = [USER, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "Go"}]
SYSTEM: dict[str, Any] = {"role": "system", "content": "Be brief."}
CALL = {"id": "c1", "function": {"name": "add", "arguments": {"b": 2.0, "a": "<1>"}}}
CALLED: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": "", "thinking": "Hm", "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "tool_name": "add", "tool_call_id": "c1"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Sum",
        "parameters": {
            "type": "object",
            "required": ["a"],
            "properties": {
                "b": {"type": ["integer", "null"], "minimum": 1},
                "a": {"type": "string", "description": "one", "enum": ["x", "y"]},
            },
            "additionalProperties": False,
        },
    },
}
TOOL_JSON = (
    '{"type":"function","function":{"name":"add","description":"Sum","parameters":{"type":"object",'
    '"required":["a"],"properties":{"a":{"type":"string","description":"one","enum":["x","y"]},'
    '"b":{"type":["integer","null"]}}}}}'
)
"""What the server keeps of the tool, its properties in order."""


def prompts(
    template: str,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None = None,
    think: bool | str | None = None,
    capabilities: tuple[str, ...] = (),
) -> list[str]:
    show = {"template": template, "capabilities": list(capabilities)}
    return PromptTemplate(show, len).prompts(messages, tools or [], think)


LLAMA2 = (
    "[INST] {{ if .System }}<<SYS>>{{ .System }}<</SYS>>{{ end }}{{ .Prompt }} [/INST] {{ .Response }}</s>"
)
LLAMA3 = """{{- range .Messages }}<|start|>{{ .Role }}<|end|>

{{ .Content }}<|eot|>
{{- end }}<|start|>assistant<|end|>

"""
QWEN = """{{- if or .System .Tools }}<|im_start|>system
{{- if .System }}
{{ .System }}
{{- end }}
{{- if .Tools }}
<tools>
{{- range .Tools }}
{"function": {{ .Function }}}
{{- end }}
</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}{{ else if .ToolCalls }}
{{- range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>tool
{{ .Content }}<|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}"""
MISTRAL = """{{- range $index, $_ := .Messages }}
{{- if eq .Role "user" }}
{{- if and (le (len (slice $.Messages $index)) 2) $.Tools }}[TOOLS] {{ $.Tools }}[/TOOLS]
{{- end }}[INST] {{ .Content }}[/INST]
{{- else if eq .Role "assistant" }}
{{- if .Content }} {{ .Content }}</s>
{{- else if .ToolCalls }}[CALLS] [
{{- range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ json .Function.Arguments }}}
{{- end }}]</s>
{{- end }}
{{- else if eq .Role "tool" }}[RESULTS] {"content": {{ json .Content }}}[/RESULTS]
{{- end }}
{{- end }}"""
DEEPSEEK = """{{- $found := false }}{{- with .System }}{{ . }}|{{ end }}
{{- range $i, $m := .Messages }}
{{- if and (eq .Role "assistant") (and $.IsThinkSet .Thinking) }}<think>{{ .Thinking }}</think>
{{- $found = true }}{{ end }}
{{- printf "<%s>" $m.Role }}{{ .Content }}
{{- end }}<assistant>
{{- if and $.IsThinkSet (not $.Think) }}<think></think>{{ end }}{{ if $found }}+{{ end }}"""
HARMONY = """{{- define "props" }}{{ range $name, $p := . }}{{ $name }}: {{ toTypeScriptType $p }}
{{- if $p.Enum }} // {{ range $p.Enum }}{{ . }};{{ end }}{{ end }},{{ end }}{{ end -}}
<|system|>Today: {{ currentDate }}
Effort: {{ if .ThinkLevel }}{{ .ThinkLevel }}{{ else }}none{{ end }}
{{- range .Tools }}|{{ .Function.Name }}({{ template "props" .Function.Parameters.Properties }}){{ end }}
{{- range .Messages }}<|start|>{{ .Role }}<|message|>{{ .Content }}<|end|>{{ end }}<|start|>assistant"""
TOOL_PRINTED = (
    '{add Sum {object <nil> <nil> [a] {"a":{"type":"string","description":"one","enum":["x","y"]},'
    '"b":{"type":["integer","null"]}}}}'
)


@pytest.mark.parametrize(
    ("template", "messages", "call", "expected"),
    [
        pytest.param("{{ .Prompt }}", [SYSTEM, *TALK], {}, "HiYesGo", id="plain-appends-the-answer"),
        pytest.param(
            LLAMA2,
            [SYSTEM, *TALK],
            {},
            "[INST] <<SYS>>Be brief.<</SYS>>Hi [/INST] Yes</s>[INST] Go [/INST] ",
            id="llama2-stops-at-the-answer",
        ),
        pytest.param(
            LLAMA2,
            [USER, SYSTEM, {"role": "user", "content": "Go"}],
            {},
            "[INST] Hi [/INST] </s>[INST] <<SYS>>Be brief.<</SYS>>Go [/INST] ",
            id="llama2-system-in-the-middle",
        ),
        pytest.param(
            "{{ if .Prompt }}<u>{{ .Prompt }}{{ end }}<a>{{ if .Response }}{{ .Response }}</a>{{ end }}!",
            TALK,
            {},
            "<u>Hi<a>Yes</a>!<u>Go<a>",
            id="response-inside-a-block",
        ),
        pytest.param(
            LLAMA3,
            [SYSTEM, USER, USER, {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}],
            {},
            "<|start|>system<|end|>\n\nBe brief.<|eot|><|start|>user<|end|>\n\nHi\n\nHi<|eot|>"
            "<|start|>tool<|end|>\n\n1<|eot|><|start|>tool<|end|>\n\n2<|eot|><|start|>assistant<|end|>\n\n",
            id="llama3-joins-neighbours-but-not-tool-results",
        ),
        pytest.param(
            QWEN,
            [SYSTEM, *CALLED],
            {"tools": [TOOL]},
            f'<|im_start|>system\nBe brief.\n<tools>\n{{"function": {TOOL_PRINTED}}}\n</tools><|im_end|>\n'
            '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{"name": "add", "arguments": '
            '{"a":"\\u003c1\\u003e","b":2}}<|im_end|>\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n',
            id="qwen-prints-a-struct-and-sorts-arguments",
        ),
        pytest.param(
            QWEN,
            TALK[:2],
            {},
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes",
            id="qwen-goes-on-with-an-answer",
        ),
        pytest.param(
            MISTRAL,
            [*TALK[:2], USER],
            {"tools": [TOOL]},
            f"[INST] Hi[/INST] Yes</s>[TOOLS] [{TOOL_JSON}][/TOOLS][INST] Hi[/INST]",
            id="mistral-tools-before-the-last-question",
        ),
        pytest.param(
            MISTRAL,
            CALLED,
            {},
            '[INST] Hi[/INST][CALLS] [{"name": "add", "arguments": {"a":"\\u003c1\\u003e","b":2}}]</s>'
            '[RESULTS] {"content": "3"}[/RESULTS]',
            id="mistral-calls",
        ),
        pytest.param(
            DEEPSEEK,
            [SYSTEM, *CALLED],
            {"think": False},
            "Be brief.|<system>Be brief.<user>Hi<think>Hm</think><assistant><tool>3<assistant>"
            "<think></think>+",
            id="deepseek-variables-with-and-printf",
        ),
        pytest.param(
            HARMONY,
            [USER],
            {"tools": [TOOL], "think": "low"},
            "<|system|>Today: 2028-01-01\nEffort: low|add(a: string // x;y;,b: number | null,)"
            "<|start|>user<|message|>Hi<|end|><|start|>assistant",
            id="harmony-define-types-and-date",
        ),
        pytest.param(
            "{{ .Nothing }}{{ range .Messages }}x{{ end }}", [USER], {}, "<no value>x", id="missing"
        ),
        pytest.param(
            "{{ range .Messages }}{{ .Content }}{{ end }}",
            [{**USER, "images": [None, None]}, {**USER, "content": "a [img] b", "images": [None, None]}],
            {},
            "[img-0][img-1]Hi\n\n[img-3]a [img-2] b",
            id="images",
        ),
    ],
)
def test_the_prompt(
    template: str, messages: list[dict[str, Any]], call: dict[str, Any], expected: str
) -> None:
    assert prompts(template, messages, **call) == [expected]


def test_think_left_out_is_what_the_model_can() -> None:
    template = (
        "{{ range .Messages }}{{ end }}{{ if $.IsThinkSet }}set {{ .Think }} {{ .ThinkLevel }}{{ end }}"
    )
    assert prompts(template, [USER], capabilities=("thinking",)) == ["set true medium"]
    assert prompts(template, [USER], capabilities=("completion",)) == [""]
    assert prompts(template, [USER], think=False, capabilities=("thinking",)) == ["set false "]
    unknown = PromptTemplate({"template": template}, len).prompts([USER], [], None)
    assert unknown == ["", "set true medium"]


@pytest.mark.parametrize(
    ("action", "written"),
    [
        ('{{ "a\\tb" }}', "a\tb"),
        ("{{ `raw\\n` }}", "raw\\n"),
        ("{{- /* said nowhere */ -}}  x", "x"),
        ("a {{- 1 -}} b", "a1b"),
        ("a {{-1}} b", "a -1 b"),
        ('{{ eq "a" "b" "a" }}{{ ne 1 2 }}{{ lt 1 2 }}{{ ge 2 3 }}', "truetruetruefalse"),
        ("{{ and 1 0 }}{{ or 0 7 }}{{ not 0 }}", "07true"),
        ('{{ "héllo" | printf "%v" | len }}', "6"),
        ('{{ "x" | printf "%s-%s" "y" }}', "y-x"),
        ("{{ range $i, $m := .Messages }}{{ $i }}{{ else }}none{{ end }}", "0"),
        ("{{ range .Tools }}{{ . }}{{ else }}none{{ end }}", "none"),
        ("{{ range $i := .Messages }}{{ if true }}{{ break }}{{ end }}x{{ end }}", ""),
        ("{{ with .System }}a{{ else with .Messages }}{{ len . }}{{ end }}", "1"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x = 3 }}{{ end }}{{ $x }}", "1"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 3 }}{{ end }}{{ $x }}", "3"),
        ("{{ (index .Messages 0).Content }}{{ (len .Messages) }}", "Hi1"),
        ("{{ json (index .Messages 0).ToolCalls }}", "[]"),
        ('{{ print 1 2 "a" 3 }}', "1 2a3"),
    ],
)
def test_an_action(action: str, written: str) -> None:
    assert prompts("{{ range .Messages }}{{ end }}" + action, [USER]) == [written]
