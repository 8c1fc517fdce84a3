"""The vocabulary of one model, from `/api/show` with `verbose: true`, with the server's own defaults."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .pretokenizers import PRE_TOKENIZERS, PreTokenizer

Kind = Literal["bpe", "sentencepiece", "wordpiece", "unigram"]

UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5
NORMAL = 1

MAX_ENTRIES = 600_000
"""Tokens, and merges, that a vocabulary may have; the largest in use have 262,144 and 514,906."""
_MAX_CHARACTERS = 1024
"""Characters of one token; a merge may have twice as many and the space between."""
_MAX_SPECIAL = 50_000
"""Control, unknown and user-defined tokens: each is looked for in every text."""
_MAX_CHARSMAP = 8 * 1024 * 1024
_LARGEST_SCORE = 1e30

_KINDS: dict[str, Kind] = {
    "gpt2": "bpe",
    "gemma4": "bpe",
    "llama": "sentencepiece",
    "bert": "wordpiece",
    "t5": "unigram",
}
# Ids that llama.cpp assumes where the model names none: (bos, eos, unknown, separator).
_DEFAULT_IDS: dict[Kind, tuple[int | None, int | None, int | None, int | None]] = {
    "bpe": (11, 11, None, None),
    "sentencepiece": (1, 2, 0, None),
    "wordpiece": (101, None, 100, 102),
    "unigram": (None, 1, 2, None),
}
# llama.cpp treats these texts as control tokens whatever type the model gives them.
_CONTROL_WORDS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s>"
    " <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response>"
    " <｜end▁of▁sentence｜> [e~["
    " <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>"
    " <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>"
    " <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>"
    " <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>"
    " <|file_sep|>"
)
_CONTROL_TEXTS = frozenset(_CONTROL_WORDS.split())
_USER_DEFINED_TEXTS = frozenset(("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"))


class UnsupportedTokenizerError(ValueError):
    """The answer of `/api/show` holds no vocabulary that can be counted with; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id with their types and scores, and the rules that apply before and after the text."""

    kind: Kind
    pre: str
    rules: PreTokenizer
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float]
    merges: Sequence[str]
    charsmap: bytes
    bos: int | None
    eos: int | None
    unknown: int | None
    separator: int | None
    add_bos: bool
    strip_bos_text: bool
    """The server removes a leading `<bos>` where the model itself declares `add_bos_token`."""
    add_eos: bool
    space_prefix: bool
    merge_spaces: bool
    lowercase: bool
    strip_accents: bool
    strips_left: frozenset[int]
    """Special tokens that swallow the ASCII spaces before them."""
    strips_right: frozenset[int]
    exact: bool
    """False where the server may apply a rule that `/api/show` does not tell."""

    @classmethod
    def from_show(cls, show: Mapping[str, Any]) -> Vocabulary:
        """Read a verbose show answer. Raises `UnsupportedTokenizerError`.

        A server may say anything, so types and sizes are checked first: at most 600,000 tokens, and as many
        merges, of at most 1,024 characters a token.
        """
        info = show.get("model_info")
        if not isinstance(info, Mapping):
            raise UnsupportedTokenizerError(
                "The show answer has no model_info; ask the server's /api/show again."
            )
        return _read(info)

    def spells_all(self) -> bool:
        """Whether every text has tokens: byte pairs without some byte count it as nothing."""
        written = (f"<0x{byte:02X}>" for byte in range(256))
        spelled = byte_characters().values() if self.rules.byte_level else written
        return self.kind != "bpe" or set(self.tokens).issuperset(spelled)


def _read(info: Mapping[str, Any]) -> Vocabulary:
    def setting(name: str) -> Any:
        return info.get(f"tokenizer.ggml.{name}")

    def flag(name: str, default: bool) -> bool:
        value = setting(name)
        return value if isinstance(value, bool) else default

    kind, pre, rules = _kind_of(setting("model"), setting("pre"))
    texts = _strings(setting("tokens"), "tokens", _MAX_CHARACTERS)
    tokens = [token if token else f"[EMPTY_{id}]" for id, token in enumerate(texts)]
    architecture = str(info.get("general.architecture", ""))
    bos, eos, unknown, separator = _special_ids(setting, kind, rules, len(tokens))
    types = _types(tokens, setting("token_type"))
    strips_left, strips_right = _strips(tokens, types, pre, architecture, str(info.get("general.name", "")))
    lowercase = flag("normalizer.lowercase", True)
    always_bos = pre in ("gemma4", "granite-embed-multi-311m")
    default_bos = kind in ("sentencepiece", "wordpiece") or (kind == "bpe" and rules.add_bos)
    return Vocabulary(
        kind=kind,
        pre=pre,
        rules=rules,
        tokens=tokens,
        types=types,
        scores=_scores(setting("scores"), len(tokens)),
        merges=_strings(setting("merges"), "merges", 2 * _MAX_CHARACTERS + 1, empty=True)
        if kind == "bpe"
        else (),
        charsmap=_bytes(setting("precompiled_charsmap")),
        bos=bos,
        eos=eos,
        unknown=unknown,
        separator=separator,
        # WordPiece is framed by [CLS] and [SEP] whatever the flags say.
        add_bos=kind == "wordpiece" or always_bos or flag("add_bos_token", default_bos),
        strip_bos_text=flag("add_bos_token", False),
        add_eos=flag("add_eos_token", kind == "unigram"),
        space_prefix=flag("add_space_prefix", kind in ("sentencepiece", "unigram")),
        merge_spaces=flag("remove_extra_whitespaces", False),
        lowercase=lowercase,
        strip_accents=flag("normalizer.strip_accents", lowercase),
        strips_left=strips_left,
        strips_right=strips_right,
        # Phi-3 swallows spaces after special tokens when its general.name says so, and /api/show hides that.
        exact=not (architecture == "phi3" and kind == "sentencepiece" and not info.get("general.name")),
    )


def _kind_of(model: Any, pre: Any) -> tuple[Kind, str, PreTokenizer]:
    kind = _KINDS.get(model) if isinstance(model, str) else None
    if kind is None:
        raise UnsupportedTokenizerError(
            f"Tokenizers of kind {model!r} are not supported for counting (only {', '.join(sorted(_KINDS))})."
        )
    if kind != "bpe":
        return kind, "default", PRE_TOKENIZERS["default"]
    name = "gemma4" if model == "gemma4" else str(pre) if pre else "default"
    rules = PRE_TOKENIZERS.get(name)
    if rules is None:
        raise UnsupportedTokenizerError(
            f"Unknown pre-tokenizer {name!r}; the server refuses to load such a model."
        )
    return kind, name, rules


def _strings(value: Any, name: str, longest: int, *, empty: bool = False) -> Sequence[str]:
    if value is None and empty:
        return ()
    if not isinstance(value, list) or not (value or empty):
        raise UnsupportedTokenizerError(f"The show answer has no {name}; ask /api/show with verbose: true.")
    _check_size(value, name)
    if value and (set(map(type, value)) != {str} or max(map(len, value)) > longest):
        raise UnsupportedTokenizerError(f"The {name} of the show answer are no texts of a usual length.")
    return value


def _numbers(value: Any, name: str, kinds: set[type]) -> Sequence[Any]:
    """A list of numbers; none where there is nothing."""
    if value is None:
        return ()
    if not isinstance(value, list) or not set(map(type, value)) <= kinds:
        raise UnsupportedTokenizerError(f"The {name} of the show answer are no numbers.")
    _check_size(value, name)
    return value


def _check_size(value: Sequence[Any], name: str) -> None:
    if len(value) > MAX_ENTRIES:
        raise UnsupportedTokenizerError(
            f"The show answer has {len(value)} {name}; at most {MAX_ENTRIES} are read."
        )


def byte_characters() -> dict[int, str]:
    """GPT-2's character for each byte: printable Latin-1 stands for itself, the rest follows U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + at) for at, byte in enumerate(others)}


def _special_ids(
    setting: Callable[[str], Any], kind: Kind, rules: PreTokenizer, size: int
) -> tuple[int | None, ...]:
    """The ids of bos, eos, unknown and separator."""
    defaults = _DEFAULT_IDS[kind]
    if kind == "bpe":
        defaults = (None if setting("model") == "gemma4" else rules.bos_id, *defaults[1:])
    names = (
        "bos_token_id",
        "eos_token_id",
        "unknown_token_id",
        "seperator_token_id",
    )  # the format's spelling
    pairs = zip(names, defaults, strict=True)
    return tuple(_token_id(setting(name), default, size) for name, default in pairs)


def _token_id(value: Any, default: int | None, size: int) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < size:
        return value
    return default if default is not None and default < size else None


def _types(tokens: Sequence[str], declared: Any) -> list[int]:
    """Token types as llama.cpp corrects them by text."""
    types = list(_numbers(declared, "token types", {int}))[: len(tokens)]
    types += [NORMAL] * (len(tokens) - len(types))
    if sum(map(types.count, (UNKNOWN, CONTROL, USER_DEFINED))) > _MAX_SPECIAL:
        raise UnsupportedTokenizerError(f"The show answer has more than {_MAX_SPECIAL} special tokens.")
    texts = {text: id for id, text in enumerate(tokens)}
    control = _CONTROL_TEXTS & texts.keys()
    for text in control:
        types[texts[text]] = CONTROL
    for text in _USER_DEFINED_TEXTS & texts.keys():
        types[texts[text]] = USER_DEFINED
    if {"<|tool_response>", "</s>"} <= control:
        types[texts["</s>"]] = NORMAL
    return types


def _scores(value: Any, size: int) -> Sequence[float]:
    scores = _numbers(value, "scores", {int, float})
    # A number beyond 32-bit floats, in which the server holds them, cannot come from a server.
    if scores and not -_LARGEST_SCORE < min(scores) <= max(scores) < _LARGEST_SCORE:
        raise UnsupportedTokenizerError("The scores of the show answer are no 32-bit numbers.")
    return scores if len(scores) >= size else [0.0] * size


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            data = base64.b64decode(value, validate=True)
        except ValueError as exc:
            raise UnsupportedTokenizerError("The character map of the vocabulary is not base64.") from exc
    else:
        data = bytes(number & 0xFF for number in _numbers(value, "bytes of the character map", {int}))
    if len(data) > _MAX_CHARSMAP:
        raise UnsupportedTokenizerError("The character map of the vocabulary is too large.")
    return data


def _strips(
    tokens: Sequence[str], types: Sequence[int], pre: str, architecture: str, name: str
) -> tuple[frozenset[int], frozenset[int]]:
    """Which special tokens swallow neighbouring spaces, a rule llama.cpp derives from names."""
    left: set[int] = set()
    right: set[int] = set()
    if pre in ("jina-v2-de", "jina-v2-es", "jina-v2-code") or architecture in (
        "nomic-bert-moe",
        "jina-bert-v3",
    ):
        left = {id for id, text in enumerate(tokens) if text == "<mask>"}
    elif "phi-3" in name.lower() or "phi3" in name.lower():
        kept = {"<unk>", "<s>", "<|endoftext|>"}
        right = {
            id
            for id, type in enumerate(types)
            if type in (UNKNOWN, CONTROL, USER_DEFINED) and tokens[id] not in kept
        }
    elif "modern-bert" in name.lower():
        left = {id for id, text in enumerate(tokens) if text == "[MASK]"}
    return frozenset(left), frozenset(right)
