"""Dify's credentials form, and an app's `completion_params` ⇄ keyword arguments of the settings. Pure.

    {"base_url": "http://…", "context_size": "4096", "vision_support": "true"}  ⇄  {"context_size": 4096, …}
    {"num_ctx": 8192, "think_level": "high"}                                    →  {"context_size": 8192, …}

A missing key, None or a blank string takes the form's default. Without `max_tokens` the bound is the context
size, as the form advises; without `base_url` the address comes from `OLLAMA_HOST`. A value that is None in
the settings is not exported. Blanks around a value are ignored. A stored form may also have the parameters of
`completion_params` and Dify's own `__model_type` and `__model_name`. docs/dify.md has a table.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from ..errors import ConfigurationError

__all__ = [
    "FORM_FIELDS",
    "PARAMETERS",
    "FormField",
    "ModelType",
    "form_from_values",
    "settings_from_completion_params",
    "values_from_form",
]

Language = Literal["en", "ja", "zh"]
ModelType = Literal["llm", "text-embedding", "rerank"]

# Parameter → our setting. The later one wins: `think_level` over `think` as in Dify, a schema over `format`.
PARAMETERS: Mapping[str, str] = {
    **{
        name: name
        for name in (
            *("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "repeat_last_n", "seed", "stop"),
            *("mirostat", "mirostat_eta", "mirostat_tau", "tfs_z", "num_gpu", "num_thread", "num_predict"),
            *("keep_alive", "format", "think"),
        )
    },
    "num_ctx": "context_size",
    "json_schema": "format",
    "think_level": "think",
}

_MOST_TOKENS = 999_999_999
# Booleans found in stored forms, in addition to the form's own "true" and "false".
_WORDS = {
    **dict.fromkeys(("supported", "yes", "1"), "true"),
    **dict.fromkeys(("unsupported", "no", "0", "off", "disabled"), "false"),
}
_ALL: tuple[ModelType, ...] = ("llm", "text-embedding", "rerank")
_LLM: tuple[ModelType, ...] = ("llm",)


@dataclass(frozen=True, slots=True)
class FormField:
    """One field of the form.

    variable: key in the stored form and name of our setting; `model` and `model_type` are stored outside it.
    labels: as shown, by language.
    kind: how the form asks for it.
    default: the value that the form fills in, None for no value.
    applies_to: model types whose form has this field.
    options: stored value and labels of each choice.
    """

    variable: str
    labels: dict[Language, str]
    kind: Literal["text", "secret", "select", "radio"]
    default: str | None = None
    required: bool = False
    applies_to: tuple[ModelType, ...] = _ALL
    options: tuple[tuple[str, dict[Language, str]], ...] = ()


def _labels(en: str, ja: str, zh: str) -> dict[Language, str]:
    return {"en": en, "ja": ja, "zh": zh}


_TYPES = (
    ("llm", _labels("LLM", "対話", "LLM")),
    ("text-embedding", _labels(*("Text Embedding",) * 3)),
    ("rerank", _labels(*("Rerank",) * 3)),
)
_MODES = (("chat", _labels("Chat", "対話", "对话")), ("completion", _labels("Completion", "補完", "补全")))
_YES_NO = (("true", _labels("Yes", "はい", "是")), ("false", _labels("No", "いいえ", "否")))
_TYPE = _labels("Model Type", "モデルタイプ", "模型类型")
_KEY = _labels("API Key (optional)", "API キー（任意）", "API 密钥（可选）")
_MODE = _labels("Completion mode", "モデルタイプ", "模型类型")
_CONTEXT = _labels("Model context size", "モデルのコンテキスト長", "模型上下文长度")
_BOUND = _labels("Upper bound for max tokens", "最大トークン上限", "最大 token 上限")
_VISION = _labels("Vision support", "ビジョン対応", "是否支持 Vision")
_CALLS = _labels("Function call support", "関数呼び出し対応", "是否支持函数调用")

FORM_FIELDS: tuple[FormField, ...] = (
    FormField("model", _labels("Model Name", "モデル名称", "模型名称"), "text", required=True),
    FormField("model_type", _TYPE, "select", "llm", options=_TYPES),
    FormField("base_url", _labels("Base URL", "基本 URL", "基础 URL"), "text", required=True),
    FormField("api_key", _KEY, "secret"),
    FormField("mode", _MODE, "select", "chat", applies_to=_LLM, options=_MODES),
    FormField("context_size", _CONTEXT, "text", "4096", required=True),
    FormField("max_tokens", _BOUND, "text", "4096", required=True, applies_to=_LLM),
    FormField("vision_support", _VISION, "radio", "false", applies_to=_LLM, options=_YES_NO),
    FormField("function_call_support", _CALLS, "radio", "false", applies_to=_LLM, options=_YES_NO),
)
_FIELDS = {field.variable: field for field in FORM_FIELDS if field.variable not in ("model", "model_type")}


def values_from_form(
    model: str,
    form: Mapping[str, Any],
    model_type: ModelType,
    completion_params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments for the settings of a model of this type, including every field of its form.

    Raises ConfigurationError for an unknown key or a value that the form does not allow.
    """
    stray = [*PARAMETERS] if model_type == "llm" else ["num_ctx", "keep_alive"]
    for key in form:
        if key not in (*_FIELDS, *stray, "__model_type", "__model_name"):
            raise _unknown_key(key, _FIELDS, "The form has no field")
    given = {key: value for key, value in form.items() if not _is_missing(value)}
    if given.get("__model_type", model_type) != model_type:
        raise ConfigurationError(
            f"This is the form of a model of type {str(form['__model_type'])[:40]!r}, not {model_type!r}.",
            hint="LLM is ChatSettings, text-embedding is EmbeddingSettings, rerank is RerankSettings.",
        )
    values: dict[str, Any] = {"model": model.strip() if isinstance(model, str) else model}
    for key, field in _FIELDS.items():
        if model_type in field.applies_to:
            default = "512" if (key, model_type) == ("context_size", "text-embedding") else field.default
            values[key] = _value(field, given.get(key, default))
        elif key in given and key != "mode":  # Dify leaves `mode` behind when the model type changes.
            own = (name for name, one in _FIELDS.items() if model_type in one.applies_to)
            raise ConfigurationError(
                f"The form field {_name(field)} belongs to models of type LLM, not {model_type}.",
                hint=f"Leave it out, or give it to chat settings. Its form has {', '.join(own)}.",
            )
    params = {**{key: form[key] for key in stray if key in form}, **(completion_params or {})}
    more, unknown = settings_from_completion_params(params)
    for name in unknown:
        raise _unknown_key(name, PARAMETERS, "completion_params have no parameter")
    values |= more
    if "max_tokens" in values and "max_tokens" not in given:
        values["max_tokens"] = values["context_size"]
    return values


def form_from_values(values: Mapping[str, Any], model_type: ModelType) -> dict[str, str]:
    """The form of a model of this type with these settings; other names are left out."""
    form = {}
    for key, field in _FIELDS.items():
        value = values.get(key)
        if value is not None and model_type in field.applies_to:
            form[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return form


def settings_from_completion_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keyword arguments of ChatSettings, and the names of parameters that have no setting.

    None and blank values are left out. Raises ConfigurationError for an invalid `json_schema`; the
    settings check the other values.
    """
    values: dict[str, Any] = {}
    for name, setting in PARAMETERS.items():
        value = params.get(name)
        if _is_missing(value):
            continue
        if name == "json_schema":
            value = _schema(value)
        elif isinstance(value, str) and name != "stop":
            value = value.strip()
            if name in ("keep_alive", "mirostat") and re.fullmatch(r"[+-]?[0-9]{1,12}", value):
                # Ollama takes seconds as a number only.
                value = int(value)
        values[setting] = value
    return values, [name for name in params if name not in PARAMETERS]


def _schema(value: Any) -> dict[str, Any]:
    try:
        schema = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise ConfigurationError(
            "The parameter 'json_schema' is no JSON object.",
            hint='It holds a schema as text, for example {"type": "object", "properties": {…}}.',
        )
    return schema


def _is_missing(value: Any) -> bool:
    """None and a blank text: the form's field was left empty."""
    return value is None or (isinstance(value, str) and not value.strip())


def _value(field: FormField, value: Any) -> Any:
    """A value of the form as a value of our setting; JSON numbers and booleans are read like their text."""
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else ""
    if field.variable in ("base_url", "api_key"):
        return text or _refuse(field, value, "is no text")
    if isinstance(value, int) and abs(value) <= _MOST_TOKENS:
        text = str(value)
    if not field.options:
        if re.fullmatch(r"[0-9]{1,9}", text) and int(text) > 0:
            return int(text)
        _refuse(field, value, f"is no number of tokens (a whole number from 1 to {_MOST_TOKENS})")
    choices = [stored for stored, _ in field.options]
    more = _WORDS if field.kind == "radio" else {}
    choice = more.get(text.lower(), text.lower())
    if choice not in choices:
        _refuse(field, value, f"is none of {', '.join((*choices, *more))}")
    return choice == "true" if field.kind == "radio" else choice


def _name(field: FormField) -> str:
    return f"{field.variable!r} ({' / '.join(field.labels.values())})"


def _refuse(field: FormField, value: Any, problem: str) -> NoReturn:
    if field.variable in ("api_key", "base_url"):
        shown = "the value"  # it may be a secret, or an address with a password
    elif isinstance(value, str):
        shown = repr(value[:60])
    else:
        small = isinstance(value, int) and abs(value) <= _MOST_TOKENS
        shown = repr(value) if small else f"a value of type {type(value).__name__}"
    hint = None if field.default is None else f'The form\'s default is "{field.default}".'
    raise ConfigurationError(f"Form field {_name(field)}: {shown} {problem}.", hint=hint)


def _unknown_key(key: object, known: Iterable[str], problem: str) -> ConfigurationError:
    close = difflib.get_close_matches(str(key), known, n=1)
    shown = [_name(_FIELDS[name]) if name in _FIELDS else repr(name) for name in close]
    question = f" Did you mean {shown[0]}?" if shown else ""
    return ConfigurationError(
        f"{problem} {str(key)[:80]!r}.{question}", hint=f"Known are {', '.join(known)}."
    )
