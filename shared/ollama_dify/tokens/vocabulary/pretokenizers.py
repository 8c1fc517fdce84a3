"""Regular expressions that cut a text into words before byte-level BPE, by the name in `tokenizer.ggml.pre`.

Names and meanings are those of llama.cpp, which Ollama uses; the server refuses a model with a name that is
not in this table. Each entry is a sequence: each expression splits the pieces of the previous one, and both
matches and gaps become pieces. The syntax is Oniguruma's.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How one `pre` cuts words, and its defaults for values that the model does not set."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    """A word that is itself a token is taken whole, whatever the merges say."""
    add_bos: bool = False
    bos_id: int | None = 11
    """The id used if the model names none (11 is GPT-2's historical default in llama.cpp)."""
    byte_level: bool = True
    """False: words are raw text with U+2581 for spaces, and missing characters become `<0xXX>` tokens."""
    as_gemma4: bool = False
    """A run of newlines that is a token is taken whole, and bos is put before every prompt."""


_CONTRACTION = r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
_OPTIONAL_CONTRACTION = f"(?:{_CONTRACTION})?"
_SPACE = r"\s+(?!\S)|\s+"
_LINE = r"\s*[\r\n]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_DIGITS = r"\p{N}{1,3}"


def _words(
    letters: str,
    digits: str,
    after: str = r"[\r\n]*",
    *,
    first: str = _CONTRACTION + "|",
    line: str = _LINE + "+",
    space: str = _SPACE,
) -> str:
    """`first`, else letters with one character before, digits, symbols with `after`, line ends, spaces."""
    return rf"{first}{_LEAD}{letters}|{digits}| ?[^\s\p{{L}}\p{{N}}]+{after}|{line}|{space}"


def _cased(letter: str, contraction: str, digits: str) -> str:
    """Words cut where an ASCII capital follows a small letter; other letters count as both cases."""
    upper, lower = rf"(?:(?={letter})[^a-z])", rf"(?:(?={letter})[^A-Z])"
    first = f"{_LEAD}{upper}*{lower}+{contraction}|"
    return _words(f"{upper}+{lower}*{contraction}", digits, r"[\r\n/]*", first=first)


def _any_case(digits: str) -> str:
    """Words of letters and marks with an optional contraction, where the server sees no letter case."""
    return _words(r"[\p{L}\p{M}]+" + _OPTIONAL_CONTRACTION, digits, r"[\r\n/]*", first="")


def _deepseek3(after: str, line: str) -> str:
    symbol = r"\p{P}[\p{S}&&[^~]]"  # the server's class lacks the tilde
    word = rf"[!-/:-@\[-`{{-~][A-Za-z]+|[^\r\n\p{{L}}{symbol}]?[\p{{L}}\p{{M}}]+"
    return rf"{word}| ?[{symbol}]+{after}|{line}|{_SPACE}"


_GPT2 = rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACE}"
_LLAMA3 = _words(r"\p{L}+", _DIGITS)
_QWEN2 = _words(r"\p{L}+", r"\p{N}")
_KANA_HAN = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
# Cased letters without the blocks that DeepSeek's own list leaves out.
_DEEPSEEK_LETTERS = (
    r"[\p{Lu}\p{Ll}\p{Lt}&&[^\x{0560}-\x{0588}\x{10C6}-\x{10FF}\x{1C80}-\x{1C8F}"
    r"\x{2D00}-\x{2D2D}\x{A790}-\x{A7FF}\x{AB30}-\x{AB68}\x{10570}-\x{105BC}"
    r"\x{16E40}-\x{16E7F}\x{1D400}-\x{1D7CB}\x{1DF00}-\x{1DF2A}]]"
)
_DEEPSEEK_PUNCTUATION = r"[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3001}-\x{3002}]"
_DEEPSEEK_CJK = r"[\x{0800}-\x{9FA5}\x{AC00}-\x{D7FF}]+"
_HAN = (
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}"
    r"\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}"
)
_AFMOE_SCRIPTS = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{30FF}\x{FF65}-\x{FF9F}"
    r"\x{2F00}-\x{2FDF}\x{0E00}-\x{0EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}"
    r"\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+"
)
_YOUTU_SCRIPTS = (
    r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[！…“”‘’—：；，\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+"
    r"|[\x{3105}-\x{312F}]+|" + _KANA_HAN
)
# Sentences are cut at punctuation only; the excluded characters are ASCII, Arabic, Hindi and Chinese marks.
_SENTENCE_WORD = r" ?[^(\s|.,!?…。，、।۔،)]+"
_JAIS2_SPACES = (
    "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"|\s{1,2}(?!\S)|\s"
)
_DIGIT_GROUPS = r"[0-9]{1,3}(?=(?:[0-9]{3})*(?!"
_LINE_RUNS = r"[^\n]+|\n+"

_TABLE: tuple[tuple[str, PreTokenizer], ...] = (
    (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    ),
    ("dbrx smaug-bpe", PreTokenizer((_LLAMA3,))),
    ("glm4 chatglm-bpe", PreTokenizer((_LLAMA3,), bos_id=None)),
    (
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en"
        " jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling exaone4",
        PreTokenizer((_GPT2,)),
    ),
    (
        "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
        PreTokenizer((r"\p{N}", _GPT2)),
    ),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
        PreTokenizer((_QWEN2,)),
    ),
    (
        "gpt-4o llama4 kanana2 talkie minimax-m2",
        PreTokenizer((_cased(r"\p{L}", _OPTIONAL_CONTRACTION, _DIGITS),)),
    ),
    (
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
        PreTokenizer((_DIGITS, _KANA_HAN, _deepseek3(r"[\r\n]*", _LINE + "+"))),
    ),
    ("poro-chat bloom gpt3-finnish", PreTokenizer((_SENTENCE_WORD,))),
    ("viking", PreTokenizer((_SENTENCE_WORD, r"\p{N}"))),
    (
        "gemma4 granite-embed-multi-311m",
        PreTokenizer((_LINE_RUNS,), byte_level=False, as_gemma4=True),
    ),
    ("sarvam-moe", PreTokenizer((_LINE_RUNS,), byte_level=False)),
    ("default", PreTokenizer((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))),
    ("falcon", PreTokenizer((r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    (
        "qwen35",
        PreTokenizer((_words(r"[\p{L}\p{M}]+", r"\p{N}").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}"),)),
    ),
    ("tekken", PreTokenizer((_cased(r"\p{L}", "", r"\p{N}"),), ignore_merges=True, add_bos=True)),
    (
        "granite-embed-multi-97m",
        PreTokenizer((_cased(r"[\p{L}\p{M}]", _OPTIONAL_CONTRACTION, _DIGITS),), ignore_merges=True),
    ),
    (
        "deepseek-llm",
        PreTokenizer(
            (
                r"[\r\n]",
                rf"\s?{_DEEPSEEK_LETTERS}+",
                rf"\s?{_DEEPSEEK_PUNCTUATION}+",
                r"\s+\z",
                _DEEPSEEK_CJK,
                r"\p{N}+",
            )
        ),
    ),
    ("deepseek-coder", PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}"))),
    ("spark2_5", PreTokenizer((_DIGITS, _KANA_HAN, _deepseek3("", r"[\r\n]"), r"\p{N}"))),
    (
        "afmoe",
        PreTokenizer(
            (
                r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
                _AFMOE_SCRIPTS,
                _deepseek3(r"[\r\n]*", _LINE + "+"),
            )
        ),
    ),
    ("jais-2", PreTokenizer((_words(r"\p{L}+", _DIGITS, space=_JAIS2_SPACES),))),
    ("superbpe", PreTokenizer((r"\p{N}+", _DIGIT_GROUPS + "[0-9]))"))),
    ("bailingmoe bailingmoe2 llada-moe", PreTokenizer((_words(r"\p{L}+", r"\p{N}", line=_LINE),))),
    ("seed-coder", PreTokenizer((_words(r"\p{L}+", r"\p{N}", ""),))),
    ("ufakzeka", PreTokenizer((_words(r"\p{L}+", r"\p{N}", first=""),))),
    (
        "kimi-k2",
        PreTokenizer(
            (_words(rf"[\p{{L}}&&[^{_HAN}]]+{_OPTIONAL_CONTRACTION}", _DIGITS, first=f"[{_HAN}]+|"),)
        ),
    ),
    ("laguna", PreTokenizer((_LINE_RUNS, _QWEN2))),
    ("minicpm5", PreTokenizer((_DIGITS, _words(r"\p{L}+", r"\p{N}+")), ignore_merges=True)),
    ("tiny_aya cohere2moe", PreTokenizer((_DIGIT_GROUPS + "[A-Za-z0-9_]))", _any_case(_DIGITS)))),
    ("youtu", PreTokenizer((_YOUTU_SCRIPTS, _any_case(r"\p{N}")), ignore_merges=True)),
    (
        "exaone-moe",
        PreTokenizer((_words(r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+", r"\p{N}", r"[\r\n/]?", line=_LINE),)),
    ),
    (
        "chameleon",
        PreTokenizer(
            (
                r"<sentinel:[0-9]+>",
                r"IMGIMG[A-I]{1,4}Z",
                r"[\t\n]|    |  ",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                _GPT2,
            ),
            add_bos=True,
        ),
    ),
)
PRE_TOKENIZERS = {name: rules for names, rules in _TABLE for name in names.split()}
