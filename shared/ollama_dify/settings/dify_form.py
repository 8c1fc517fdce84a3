"""Dify's credentials form for Ollama ⇄ keyword arguments of the settings; all form values are strings.

    {"base_url": "http://…", "context_size": "4096", "vision_support": "true"}  ⇄  {"context_size": 4096, …}

A missing key, None and a blank string take the form's default. Without `max_tokens` the bound is the context
size, as the form advises; without `base_url` the address is left to `OLLAMA_HOST`. A value that is None in
the settings is not exported. Blanks around a value do not count. Beside its fields a stored form may hold the
parameters of `completion_params` and Dify's own `__model_type` and `__model_name`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ConfigurationError
from .completion_params import PARAMETERS, is_missing, settings_from_completion_params

__all__ = [
    "FORM_FIELDS",
    "FormField",
    "chat_form",
    "chat_values_from_form",
    "embedding_form",
    "embedding_values_from_form",
    "rerank_form",
    "rerank_values_from_form",
]

Language = Literal["en", "ja", "zh"]
ModelType = Literal["llm", "text-embedding", "rerank"]

EMBEDDING_CONTEXT_SIZE = 512
_MOST_TOKENS = 999_999_999
_LOADING_PARAMETERS = ("num_ctx", "keep_alive")
# Dify's own notes in a stored form.
_MARKS = ("__model_type", "__model_name")
_TRUE = frozenset({"true", "supported", "yes", "1"})
_FALSE = frozenset({"false", "unsupported", "no", "0", "off", "disabled"})
_ALL: tuple[ModelType, ...] = ("llm", "text-embedding", "rerank")


@dataclass(frozen=True, slots=True)
class FormField:
    """One field of the form.

    variable: key in the stored form and name of our setting; `model` and `model_type` are kept beside it.
    labels: as shown, by language.
    kind: how the form asks for it.
    default: what the form fills in, None for nothing.
    applies_to: model types whose form has it.
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


_LLM: tuple[ModelType, ...] = ("llm",)
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
    FormField("model", _labels("Model Name", "モデル名称", "模型名称"), "text", None, required=True),
    FormField(
        "model_type", _labels("Model Type", "モデルタイプ", "模型类型"), "select", "llm", options=_TYPES
    ),
    FormField("base_url", _labels("Base URL", "基本 URL", "基础 URL"), "text", None, required=True),
    FormField("api_key", _KEY, "secret"),
    FormField("mode", _MODE, "select", "chat", applies_to=_LLM, options=_MODES),
    FormField("context_size", _CONTEXT, "text", "4096", required=True),
    FormField("max_tokens", _BOUND, "text", "4096", required=True, applies_to=_LLM),
    FormField("vision_support", _VISION, "radio", "false", applies_to=_LLM, options=_YES_NO),
    FormField("function_call_support", _CALLS, "radio", "false", applies_to=_LLM, options=_YES_NO),
)
_FIELDS = {field.variable: field for field in FORM_FIELDS if field.variable not in ("model", "model_type")}


def chat_values_from_form(
    model: str, form: Mapping[str, Any], completion_params: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Keyword arguments for ChatSettings, every field of the form among them.

    Raises ConfigurationError for an unknown key or a value the form cannot hold.
    """
    stray = {key: value for key, value in form.items() if key in PARAMETERS}
    values = _read(model, form, "llm", context_size=int(_FIELDS["context_size"].default or 0))
    more, unknown = settings_from_completion_params({**stray, **(completion_params or {})})
    for name in unknown:
        raise _unknown_key(name, PARAMETERS, "completion_params have no parameter")
    values |= more
    if values["max_tokens"] is None:
        values["max_tokens"] = values["context_size"]
    return values


def embedding_values_from_form(model: str, form: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for EmbeddingSettings: model, base_url, api_key, context_size (512 when missing)."""
    return _loading_values(model, form, "text-embedding", EMBEDDING_CONTEXT_SIZE)


def rerank_values_from_form(model: str, form: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for RerankSettings: model, base_url, api_key, context_size."""
    return _loading_values(model, form, "rerank", int(_FIELDS["context_size"].default or 0))


def _loading_values(
    model: str, form: Mapping[str, Any], model_type: ModelType, context_size: int
) -> dict[str, Any]:
    values = _read(model, form, model_type, context_size=context_size)
    stray = {key: form[key] for key in _LOADING_PARAMETERS if key in form}
    return values | settings_from_completion_params(stray)[0]


def chat_form(values: Mapping[str, Any]) -> dict[str, str]:
    """The form of an LLM with these settings; names that are not on the form are left out."""
    return _write(values, "llm")


def embedding_form(values: Mapping[str, Any]) -> dict[str, str]:
    """The form of a Text Embedding model with these settings."""
    return _write(values, "text-embedding")


def rerank_form(values: Mapping[str, Any]) -> dict[str, str]:
    """The form of a Rerank model with these settings."""
    return _write(values, "rerank")


def _read(model: str, form: Mapping[str, Any], model_type: ModelType, *, context_size: int) -> dict[str, Any]:
    own = PARAMETERS if model_type == "llm" else _LOADING_PARAMETERS
    for key in form:
        if key in own or key in _MARKS:
            continue
        if key not in _FIELDS:
            raise _unknown_key(key, _FIELDS, "The form has no field")
        # Dify leaves `mode` behind when the model type changes.
        stray = model_type not in _FIELDS[key].applies_to and key != "mode"
        if stray and not is_missing(form[key]):
            raise ConfigurationError(
                f"The form field {_name(key)} belongs to models of type LLM, not {model_type}.",
                hint=f"Leave it out, or give it to chat settings. {_allowed(model_type)}",
            )
    if not is_missing(form.get("__model_type")) and form["__model_type"] != model_type:
        raise ConfigurationError(
            f"This is the form of a model of type {str(form['__model_type'])[:40]!r}, not {model_type!r}.",
            hint="LLM is ChatSettings, text-embedding is EmbeddingSettings, rerank is RerankSettings.",
        )
    # base_url and api_key have no default; max_tokens follows the context size
    values: dict[str, Any] = {
        "model": model.strip() if isinstance(model, str) else model,
        "base_url": None,
        "api_key": None,
        "mode": "chat",
        "context_size": context_size,
        "max_tokens": None,
        "vision_support": False,
        "function_call_support": False,
    }
    for key, field in _FIELDS.items():
        if model_type not in field.applies_to:
            del values[key]
        elif not is_missing(form.get(key)):
            values[key] = _PARSERS[key](key, form[key])
    return values


def _write(values: Mapping[str, Any], model_type: ModelType) -> dict[str, str]:
    form = {}
    for key, field in _FIELDS.items():
        value = values.get(key)
        if value is not None and model_type in field.applies_to:
            form[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return form


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad(key, value, "is no text")
    return value.strip()


def _mode(key: str, value: Any) -> str:
    mode = value.strip().lower() if isinstance(value, str) else ""
    if mode not in ("chat", "completion"):
        raise _bad(key, value, 'is neither "chat" nor "completion"')
    return mode


def _count(key: str, value: Any) -> int:
    count = 0
    if isinstance(value, int) and not isinstance(value, bool):
        count = value
    elif isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
        # int() leaves some separators that strip() takes away.
        count = int(value.strip())
    if not 1 <= count <= _MOST_TOKENS:
        raise _bad(key, value, f"is no number of tokens (a whole number from 1 to {_MOST_TOKENS})")
    return count


def _flag(key: str, value: Any) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise _bad(key, value, f"is none of {', '.join(sorted(_TRUE))} and {', '.join(sorted(_FALSE))}")


_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "base_url": _text,
    "api_key": _text,
    "mode": _mode,
    "context_size": _count,
    "max_tokens": _count,
    "vision_support": _flag,
    "function_call_support": _flag,
}


def _name(key: str) -> str:
    labels = _FIELDS[key].labels
    return f"{key!r} ({labels['en']} / {labels['ja']} / {labels['zh']})"


def _bad(key: str, value: Any, problem: str) -> ConfigurationError:
    # neither a secret nor an address with a password may be shown
    shown = "the value" if key in ("api_key", "base_url") else _shown(value)
    default = _FIELDS[key].default
    hint = None if default is None else f'The form\'s default is "{default}".'
    return ConfigurationError(f"Form field {_name(key)}: {shown} {problem}.", hint=hint)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value[:60])
    if isinstance(value, int) and abs(value) <= _MOST_TOKENS:
        return repr(value)
    return f"a value of type {type(value).__name__}"


def _allowed(model_type: ModelType) -> str:
    names = (key for key, field in _FIELDS.items() if model_type in field.applies_to)
    return f"Its form has {', '.join(names)}."


def _unknown_key(key: object, known: Mapping[str, Any], problem: str) -> ConfigurationError:
    close = difflib.get_close_matches(str(key), known, n=1)
    shown = _name(close[0]) if close and close[0] in _FIELDS else "".join(map(repr, close))
    question = f" Did you mean {shown}?" if close else ""
    return ConfigurationError(
        f"{problem} {str(key)[:80]!r}.{question}", hint=f"Known are {', '.join(known)}."
    )
