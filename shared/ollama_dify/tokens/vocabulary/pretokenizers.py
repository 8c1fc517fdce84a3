"""Regular expressions that cut a text into words before byte-level BPE, by the name in `tokenizer.ggml.pre`.

The names and what they mean are those of llama.cpp, which Ollama runs; a name outside this table makes
the server refuse the model. Each entry is a sequence: every expression cuts the pieces that the one
before left, matches and gaps alike become pieces of their own. The syntax is Oniguruma's.
"""

from __future__ import annotations

from dataclasses import dataclass

_CONTRACTION = r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
_LOWER_CONTRACTION = r"'(?:[sdmt]|ll|ve|re)"
_SPACE = r"\s+(?!\S)|\s+"
_LINES = r"\s*[\r\n]+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"


def _words(*alternatives: str) -> str:
    return "|".join((*alternatives, _SPACE))


_GPT2 = _words(_LOWER_CONTRACTION, r" ?\p{L}+", r" ?\p{N}+", _SYMBOLS)
_LLAMA3 = _words(_CONTRACTION, _WORD, r"\p{N}{1,3}", _SYMBOLS + r"[\r\n]*", _LINES)
_QWEN2 = _words(_CONTRACTION, _WORD, r"\p{N}", _SYMBOLS + r"[\r\n]*", _LINES)
_QWEN35 = _words(
    _CONTRACTION,
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r"\p{N}",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    _LINES,
)


def _cased(letter: str, *, contraction: str, digits: str, after_symbols: str = r"[\r\n/]*") -> str:
    """Words cut where an ASCII capital follows a small letter; other letters count as both cases."""
    upper, lower = rf"(?:(?={letter})[^a-z])", rf"(?:(?={letter})[^A-Z])"
    lead = r"[^\r\n\p{L}\p{N}]?"
    return _words(
        f"{lead}{upper}*{lower}+{contraction}",
        f"{lead}{upper}+{lower}*{contraction}",
        digits,
        _SYMBOLS + after_symbols,
        _LINES,
    )


_OPTIONAL_CONTRACTION = f"(?:{_CONTRACTION})?"
_TEKKEN = _cased(r"\p{L}", contraction="", digits=r"\p{N}")
_GPT4O = _cased(r"\p{L}", contraction=_OPTIONAL_CONTRACTION, digits=r"\p{N}{1,3}")
_GRANITE_MULTI = _cased(r"[\p{L}\p{M}]", contraction=_OPTIONAL_CONTRACTION, digits=r"\p{N}{1,3}")


def _any_case(digits: str, after_symbols: str) -> str:
    """Words of letters and marks with an optional contraction, where the server sees no letter case."""
    return _words(
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+" + _OPTIONAL_CONTRACTION,
        digits,
        _SYMBOLS + after_symbols,
        _LINES,
    )


# The server's symbol class lacks the tilde.
_DEEPSEEK_SYMBOL = r"[\p{P}[\p{S}&&[^~]]]"
_ASCII_PUNCTUATION_WORD = r"[!-/:-@\[-`{-~][A-Za-z]+"


def _deepseek3(*tail: str) -> str:
    return _words(
        _ASCII_PUNCTUATION_WORD,
        r"[^\r\n\p{L}\p{P}[\p{S}&&[^~]]]?[\p{L}\p{M}]+",
        *tail,
    )


_KANA_HAN = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
_DEEPSEEK3 = (r"\p{N}{1,3}", _KANA_HAN, _deepseek3(rf" ?{_DEEPSEEK_SYMBOL}+[\r\n]*", _LINES))
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
_KIMI_K2 = _words(
    rf"[{_HAN}]+",
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{_HAN}]]+{_OPTIONAL_CONTRACTION}",
    r"\p{N}{1,3}",
    _SYMBOLS + r"[\r\n]*",
    _LINES,
)
_AFMOE_SCRIPTS = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{30FF}\x{FF65}-\x{FF9F}"
    r"\x{2F00}-\x{2FDF}\x{0E00}-\x{0EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}"
    r"\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+"
)
# Sentences are cut at punctuation only; the excluded characters are ASCII, Arabic, Hindi and Chinese marks.
_SENTENCE_WORD = r" ?[^(\s|.,!?…。，、।۔،)]+"
_JAIS2_SPACES = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
_JAIS2 = "|".join(
    (
        _CONTRACTION,
        _WORD,
        r"\p{N}{1,3}",
        _SYMBOLS + r"[\r\n]*",
        _LINES,
        _JAIS2_SPACES,
        r"\s{1,2}(?!\S)",
        r"\s",
    )
)
_LINE_RUNS = r"[^\n]+|\n+"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How one `pre` cuts words, and the defaults it sets where the model says nothing."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    """A word that is itself a token is taken whole, whatever the merges say."""
    add_bos: bool = False
    bos_id: int | None = 11
    """The id used where the model names none (11 is GPT-2's historical default in llama.cpp)."""
    byte_level: bool = True
    """False: words are raw text with U+2581 for spaces, and missing characters become `<0xXX>` tokens."""
    as_gemma4: bool = False
    """A run of newlines that is a token stands for itself, and bos is put before every prompt."""


_DIGIT_THEN_GPT2 = PreTokenizer((r"\p{N}", _GPT2))
_PLAIN_GPT2 = PreTokenizer((_GPT2,))
_AS_LLAMA3 = PreTokenizer((_LLAMA3,))
_OWN_LLAMA3 = PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True)
_AS_QWEN2 = PreTokenizer((_QWEN2,))
_AS_GPT4O = PreTokenizer((_GPT4O,))
_AS_DEEPSEEK3 = PreTokenizer(_DEEPSEEK3)
_CHATGLM = PreTokenizer((_LLAMA3,), bos_id=None)
_SENTENCES = PreTokenizer((_SENTENCE_WORD,))
_ISOLATED_DIGIT_GROUPS = r"[0-9]{1,3}(?=(?:[0-9]{3})*(?![0-9]))"
_AS_GEMMA4 = PreTokenizer((_LINE_RUNS,), byte_level=False, as_gemma4=True)

_GROUPS: tuple[tuple[PreTokenizer, str], ...] = (
    (_OWN_LLAMA3, "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"),
    (_AS_LLAMA3, "dbrx smaug-bpe"),
    (_CHATGLM, "glm4 chatglm-bpe"),
    (
        _PLAIN_GPT2,
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert"
        " jina-v1-en jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling exaone4",
    ),
    (_DIGIT_THEN_GPT2, "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"),
    (
        _AS_QWEN2,
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
    ),
    (_AS_GPT4O, "gpt-4o llama4 kanana2 talkie minimax-m2"),
    (_AS_DEEPSEEK3, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (_SENTENCES, "poro-chat bloom gpt3-finnish"),
    (_AS_GEMMA4, "gemma4 granite-embed-multi-311m"),
)

_SINGLE: dict[str, PreTokenizer] = {
    "default": PreTokenizer((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "qwen35": PreTokenizer((_QWEN35,)),
    "sarvam-moe": PreTokenizer((_LINE_RUNS,), byte_level=False),
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?{_DEEPSEEK_LETTERS}+",
            rf"\s?{_DEEPSEEK_PUNCTUATION}+",
            r"\s+\z",
            _DEEPSEEK_CJK,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}")),
    "falcon": PreTokenizer((r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "viking": PreTokenizer((_SENTENCE_WORD, r"\p{N}")),
    "jais-2": PreTokenizer((_JAIS2,)),
    "superbpe": PreTokenizer((r"\p{N}+", _ISOLATED_DIGIT_GROUPS)),
    "bailingmoe": PreTokenizer((_words(_CONTRACTION, _WORD, r"\p{N}", _SYMBOLS + r"[\r\n]*", r"\s*[\r\n]"),)),
    "seed-coder": PreTokenizer((_words(_CONTRACTION, _WORD, r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+", _LINES),)),
    "ufakzeka": PreTokenizer((_words(_WORD, r"\p{N}", _SYMBOLS + r"[\r\n]*", _LINES),)),
    "kimi-k2": PreTokenizer((_KIMI_K2,)),
    "laguna": PreTokenizer((_LINE_RUNS, _QWEN2)),
    "minicpm5": PreTokenizer(
        (r"\p{N}{1,3}", _words(_CONTRACTION, _WORD, r"\p{N}+", _SYMBOLS + r"[\r\n]*", _LINES)),
        ignore_merges=True,
    ),
    "granite-embed-multi-97m": PreTokenizer((_GRANITE_MULTI,), ignore_merges=True),
    "tiny_aya": PreTokenizer(
        (r"[0-9]{1,3}(?=(?:[0-9]{3})*(?![A-Za-z0-9_]))", _any_case(r"\p{N}{1,3}", r"[\r\n/]*"))
    ),
    "youtu": PreTokenizer(
        (
            r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+"
            r"|[！…“”‘’—：；，\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+"
            r"|[\x{3105}-\x{312F}]+|" + _KANA_HAN,
            _any_case(r"\p{N}", r"[\r\n/]*"),
        ),
        ignore_merges=True,
    ),
    "spark2_5": PreTokenizer(
        (
            r"\p{N}{1,3}",
            _KANA_HAN,
            _deepseek3(rf" ?{_DEEPSEEK_SYMBOL}+", r"[\r\n]"),
            r"\p{N}",
        )
    ),
    "afmoe": PreTokenizer(
        (
            r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
            _AFMOE_SCRIPTS,
            _deepseek3(rf" ?{_DEEPSEEK_SYMBOL}+[\r\n]*", _LINES),
        )
    ),
    "exaone-moe": PreTokenizer(
        (
            _words(
                _CONTRACTION,
                r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
                r"\p{N}",
                _SYMBOLS + r"[\r\n/]?",
                r"\s*[\r\n]",
            ),
        )
    ),
    "chameleon": PreTokenizer(
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
}
_SINGLE["bailingmoe2"] = _SINGLE["llada-moe"] = _SINGLE["bailingmoe"]
_SINGLE["cohere2moe"] = _SINGLE["tiny_aya"]

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    **{name: rules for rules, names in _GROUPS for name in names.split()},
    **_SINGLE,
}
