"""Token ids and counts against what a real server counted, and against slow references."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_dify._vocabulary.byte_level import byte_characters
from ollama_dify._vocabulary.pretokenizers import PRE_TOKENIZERS
from ollama_dify.tokens import (
    ModelTokenizer,
    TokenCount,
    TokenEstimator,
    UnsupportedTokenizerError,
    tokenizer_from_show,
    tokenizer_part_of_show,
)

DATA = Path(__file__).parent.parent / "data" / "tokens"
RECORDED: dict[str, Any] = json.loads(gzip.decompress((DATA / "tokenizers.json.gz").read_bytes()))
TEXTS: list[str] = RECORDED["texts"]
NAMES = [name for name, entry in RECORDED["tokenizers"].items() if "ids" in entry]
FEW_EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def recorded(name: str) -> dict[str, Any]:
    entry: dict[str, Any] = RECORDED["tokenizers"][name]
    return entry


@cache
def tokenizer(name: str) -> ModelTokenizer:
    return ModelTokenizer.from_show(recorded(name))


def made(**settings: Any) -> ModelTokenizer:
    info = {f"tokenizer.ggml.{name}": value for name, value in settings.items()}
    return ModelTokenizer.from_show({"model_info": info})


def test_the_recording_holds_what_the_product_promises() -> None:
    assert len(NAMES) >= 29
    assert len(TEXTS) == 139


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_the_servers(name: str) -> None:
    own = tokenizer(name)
    assert [own.encode(text, special=False) for text in TEXTS] == recorded(name)["ids"]
    assert [own.encode(text) for text in TEXTS] == recorded(name)["special"]


@pytest.mark.parametrize("name", NAMES)
def test_counts_equal_the_servers(name: str) -> None:
    own = tokenizer(name)
    embedding = recorded(name)["source"] == "count_embed"
    count = own.count_embedding if embedding else own.count
    pairs = zip(TEXTS, recorded(name)["counts"], strict=True)
    # Without a count: the empty text, and one text beyond the embedding model's limit.
    counted = [(text, tokens) for text, tokens in pairs if tokens is not None]
    assert len(counted) >= 137
    assert [count(text) for text, _ in counted] == [tokens for _, tokens in counted]
    assert count("") == 0
    assert own.exact


@pytest.mark.parametrize(
    ("show", "message"),
    [
        pytest.param({}, "no model_info", id="no-info"),
        pytest.param({"model_info": {"tokenizer.ggml.model": "rwkv"}}, "'rwkv' are not supported", id="kind"),
        pytest.param({"model_info": {"tokenizer.ggml.model": "gpt2"}}, "verbose: true", id="not-verbose"),
        pytest.param(
            {"model_info": {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": None}},
            "verbose: true",
            id="null-tokens",
        ),
        pytest.param(recorded("tok-bpe-unknownpre"), "no-such-pre.*server refuses", id="unknown-pre"),
    ],
)
def test_what_cannot_be_counted_says_why_and_is_estimated_instead(show: Any, message: str) -> None:
    with pytest.raises(UnsupportedTokenizerError, match=message):
        ModelTokenizer.from_show(show)
    estimator = tokenizer_from_show(show)
    assert isinstance(estimator, TokenEstimator)
    assert not estimator.exact


def test_the_estimator_is_never_below_a_real_count() -> None:
    estimator = TokenEstimator()
    for name in NAMES:
        for text, ids in zip(TEXTS, recorded(name)["special"], strict=True):
            assert not text or estimator.count(text) >= len(ids)


def test_importing_does_not_import_the_library() -> None:
    code = (
        "import sys; import ollama_dify.tokens, ollama_dify.token_cache, ollama_dify.chat_tokens;"
        " sys.exit('tokenizers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_kept_part_of_an_answer_is_enough() -> None:
    show = {**recorded("tok-bpe-llama3"), "modelfile": "x", "tensors": [1], "license": "y"}
    part = tokenizer_part_of_show(show)
    assert sorted(part) == ["model_info"]
    assert ModelTokenizer.from_show(part).count("Hello") == 2


def test_counts_are_values() -> None:
    assert TokenCount(3, exact=True) == TokenCount(3, exact=True) != TokenCount(3, exact=False)


# --- words


def words(pre: str, text: str) -> list[str]:
    from tokenizers import Regex, pre_tokenizers

    pieces = [text]
    for pattern in PRE_TOKENIZERS[pre].patterns:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        pieces = [word for piece in pieces for word, _ in split.pre_tokenize_str(piece)]
    return pieces


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("llama3", "I'M 12345 ok\n\n x", ["I", "'M", " ", "123", "45", " ok", "\n\n", " x"]),
        ("gpt-2", "I'm I'M a  b", ["I", "'m", " I", "'", "M", " a", " ", " b"]),
        ("qwen2", "a 123!\n", ["a", " ", "1", "2", "3", "!\n"]),
        ("gpt-4o", "HelloWorld's", ["Hello", "World's"]),
        ("tekken", "HelloWorld 12", ["Hello", "World", " ", "1", "2"]),
        ("deepseek-v3", "12345東京 .abc ~~x", ["123", "45", "東京", " .", "abc", " ", "~", "~x"]),
        ("deepseek-llm", "ab, c\r\n12", ["ab", ",", " c", "\r", "\n", "12"]),
        ("falcon", "a+b 12345", ["a", "+", "b", " ", "123", "45"]),
        ("superbpe", "a b 1234567", ["a b ", "1", "234", "567"]),
        ("afmoe", "x 1234567", ["x", " ", "1", "234", "567"]),
        ("tiny_aya", "1234 12x", ["1", "234", " ", "12", "x"]),
        ("kimi-k2", "東京abc 1234", ["東京", "abc", " ", "123", "4"]),
        ("bloom", "Hello, you there", ["Hello", ",", " you", " there"]),
        ("viking", "a 12", ["a", " ", "1", "2"]),
        ("jais-2", "a    b", ["a", "  ", " ", " b"]),
        ("seed-coder", "a!\nb", ["a", "!", "\n", "b"]),
        ("bailingmoe", "a\n\nb!\n", ["a", "\n\n", "b", "!\n"]),
        ("exaone-moe", "to be or 1", ["to be or", " ", "1"]),
        ("laguna", "a\n\n b", ["a", "\n\n", " b"]),
        ("minicpm5", "12345 a", ["123", "45", " a"]),
        ("ufakzeka", "x's", ["x", "'s"]),
        ("chameleon", "IMGIMGABZ 12", ["IMGIMGABZ", " ", "1", "2"]),
        ("youtu", "한국、abc12", ["한국", "、", "abc", "1", "2"]),
        ("spark2_5", "a!\n1234", ["a", "!", "\n", "1", "2", "3", "4"]),
        ("gemma4", "a b\n\nc", ["a b", "\n\n", "c"]),
    ],
)
def test_words(pre: str, text: str, expected: list[str]) -> None:
    assert words(pre, text) == expected


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_no_pre_tokenizer_loses_or_adds_text(pre: str) -> None:
    alphabet = list(byte_characters().values()) + [f"<0x{byte:02X}>" for byte in range(256)]
    own = made(model="gpt2", pre=pre, tokens=alphabet, merges=[], add_bos_token=False)
    raw = not PRE_TOKENIZERS[pre].byte_level
    for text in TEXTS:
        text = text.replace("�", "").encode(errors="ignore").decode()
        expected = sum(
            1 if raw and char in alphabet else len(char.encode()) for char in text.replace(" ", "▁")
        )
        assert own.count_text(text) == (expected if raw else len(text.encode())), text


# --- references

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)
PLAIN = st.text(st.sampled_from("ab the in er 10,.!?'\n\t é中😀ßя"), max_size=120)


def gpt2_words(text: str) -> list[str]:
    """The words of GPT-2's expression, by hand: contraction, letters, numbers, other, spaces."""

    def kind(char: str) -> str:
        category = unicodedata.category(char)[0]
        return (
            "s"
            if char.isspace() and char not in "\x1c\x1d\x1e\x1f"
            else category
            if category in "LN"
            else "o"
        )

    result = []
    at = 0
    while at < len(text):
        short = next(
            (s for s in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d") if text.startswith(s, at)), None
        )
        start = at + (text[at] == " " and at + 1 < len(text) and kind(text[at + 1]) != "s")
        if short:
            end = at + len(short)
        elif kind(text[start]) != "s":
            end = start
            while end < len(text) and kind(text[end]) == kind(text[start]):
                end += 1
        else:
            end = at
            while end < len(text) and kind(text[end]) == "s":
                end += 1
            end -= end < len(text) and end - at > 1
        result.append(text[at:end])
        at = end
    return result


def merged(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    while True:
        pairs = list(pairwise(symbols))
        known = [pair for pair in pairs if pair in ranks]
        if not known:
            return symbols
        at = pairs.index(min(known, key=lambda pair: ranks[pair]))
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]


@FEW_EXAMPLES
@given(ANY_TEXT | PLAIN)
def test_byte_pairs_against_greedy_merging(text: str) -> None:
    info = recorded("tok-bpe-gpt2")["model_info"]
    ids = {token: id for id, token in enumerate(info["tokenizer.ggml.tokens"])}
    lines = info["tokenizer.ggml.merges"]
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
    table = byte_characters()
    if "<" in text:
        text = text.replace("<", "(")  # No special tokens here.
    expected = [
        ids[symbol]
        for word in gpt2_words(text)
        for symbol in merged([table[byte] for byte in word.encode()], ranks)  # type: ignore[arg-type]
    ]
    assert tokenizer("tok-bpe-gpt2").encode(text, special=False) == expected


def sentencepiece(text: str, info: dict[str, Any]) -> list[int]:
    """Merge the best-scored neighbours, leftmost first, until none joins to a token."""
    tokens = info["tokenizer.ggml.tokens"]
    ids = {token: id for id, token in enumerate(tokens)}
    scores = dict(zip(tokens, info["tokenizer.ggml.scores"], strict=True))
    symbols = list(text.replace(" ", "▁"))
    while True:
        best = max(
            ((scores[a + b], -at) for at, (a, b) in enumerate(pairwise(symbols)) if a + b in ids),
            default=None,
        )
        if best is None:
            break
        at = -best[1]
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]
    return [
        id
        for symbol in symbols
        for id in ([ids[symbol]] if symbol in ids else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()])
    ]


REPEATING = st.lists(
    st.tuples(
        st.sampled_from(["a", " ", "the", "ing", "ab", "  ", "\n", "er", "é", "😀"]), st.integers(1, 30)
    ),
    max_size=8,
).map(lambda parts: "".join(text * times for text, times in parts))


@pytest.mark.parametrize("name", ["tok-spm-noprefix", "tok-spm-gemma"])
@FEW_EXAMPLES
@given(text=ANY_TEXT | PLAIN | REPEATING)
def test_sentencepiece_against_greedy_merging(name: str, text: str) -> None:
    info = recorded(name)["model_info"]
    for special in ("<", "\n", "\t", "▁▁"):
        text = text.replace(special, ".")
    assert tokenizer(name).encode(text, special=False) == sentencepiece(text, info)


@FEW_EXAMPLES
@given(st.text("aehirt ", min_size=60, max_size=400))
def test_long_words_against_greedy_merging(text: str) -> None:
    """Every pair of these letters is inside some token, so that texts are not cut and the heap is used."""
    letters = "aehirt▁"
    pairs = [a + b for a in letters for b in letters]
    tokens = [*letters, *pairs, "the", "▁the", "hat", "heat", "tata", "aaa", "aaaa", "▁▁▁"]
    scores = (
        [0.0] * len(letters)
        + [-float(hash_free(pair)) for pair in pairs]
        + [-3.0, -9.0, -3.0, -1.0, -9.0, 0, 0, 0]
    )
    info = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores}
    own = made(model="llama", tokens=tokens, scores=scores, add_space_prefix=False, add_bos_token=False)
    assert own.encode(text) == sentencepiece(text, info)


def hash_free(pair: str) -> int:
    """A number with many ties, the same in every process."""
    return (ord(pair[0]) * 7 + ord(pair[1])) % 11


@FEW_EXAMPLES
@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789 ,.", max_size=80))
def test_unigram_against_exhaustive_search(text: str) -> None:
    info = recorded("tok-t5")["model_info"]
    types, scores = info["tokenizer.ggml.token_type"], info["tokenizer.ggml.scores"]
    normal = {token: id for id, token in enumerate(info["tokenizer.ggml.tokens"]) if types[id] == 1}
    unknown = min(scores[id] for id in normal.values()) - 10
    own = tokenizer("tok-t5")
    spaced = "".join(f"▁{word}" for word in text.split())
    best: list[float] = [0.0]
    for end in range(1, len(spaced) + 1):
        options = [best[end - 1] + unknown] if spaced[end - 1] not in normal else []
        options += [
            best[start] + scores[normal[spaced[start:end]]]
            for start in range(max(0, end - 20), end)
            if spaced[start:end] in normal
        ]
        best.append(max(options))
    ids = own.encode(text, special=False)
    tokens = info["tokenizer.ggml.tokens"]
    if info.get("tokenizer.ggml.unknown_token_id", 2) not in ids:
        assert "".join(tokens[id] for id in ids) == spaced
        assert sum(scores[id] for id in ids) == pytest.approx(best[-1])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=ANY_TEXT | PLAIN)
def test_any_text_has_a_count_and_no_more_tokens_than_bytes(name: str, text: str) -> None:
    own = tokenizer(name)
    assert 0 <= own.count_text(text) <= TokenEstimator().count(text)
    assert all(0 <= id < own.size for id in own.encode(text))


@pytest.mark.parametrize("name", ["tiny-chat", "tok-bpe-llama3", "tok-spm-noprefix", "tok-bpe-tekken"])
@FEW_EXAMPLES
@given(left=PLAIN, right=PLAIN)
def test_texts_around_a_special_token_do_not_meet(name: str, left: str, right: str) -> None:
    own = tokenizer(name)
    special = recorded(name)["model_info"]["tokenizer.ggml.tokens"][2]
    joined = own.token_ids(f"{left}{special}{right}")
    assert joined == [*own.token_ids(left), 2, *own.token_ids(right)]


# --- vocabularies that no recording holds


def test_merges_into_texts_that_are_no_tokens_are_spelled_by_bytes() -> None:
    own = made(
        model="gpt2", pre="gpt-2", tokens=["a", "b", "c", "bc"], merges=["a b", "b c"], add_bos_token=False
    )
    # "ab" wins over "bc", is no token, and falls apart into its bytes; the server does the same.
    assert own.encode("abc") == [0, 1, 2]


def test_a_word_that_is_a_token_is_taken_whole_where_merges_are_ignored() -> None:
    vocabulary = {"tokens": ["a", "b", "ab"], "merges": [], "add_bos_token": False, "model": "gpt2"}
    assert made(**vocabulary, pre="llama-bpe").encode("ab") == [2]
    assert made(**vocabulary, pre="qwen2").encode("ab") == [0, 1]


def test_gemma4_escapes_spaces_spells_bytes_and_keeps_runs_of_newlines() -> None:
    tokens = ["<bos>", "▁", "a", "▁a", "\n\n", "<0xC3>", "<0xA9>", "\n"]
    own = made(model="gemma4", tokens=tokens, merges=["▁ a"], bos_token_id=0, add_bos_token=False)
    assert own.encode(" a\n\n\né") == [0, 3, 7, 7, 7, 5, 6]
    assert own.encode(" a\n\na", special=False) == [3, 4, 2]


def test_tokens_typed_as_normal_but_ending_a_turn_are_special() -> None:
    own = made(model="gpt2", pre="gpt-2", tokens=["a", "<|im_end|>"], merges=[], add_bos_token=False)
    assert own.encode("a<|im_end|>a") == [0, 1, 0]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        pytest.param({}, [1, 3], id="defaults"),
        pytest.param({"add_bos_token": False}, [3], id="no-bos"),
        pytest.param({"add_eos_token": True}, [1, 3, 2], id="eos"),
        pytest.param({"bos_token_id": 0}, [0, 3], id="bos-id"),
        pytest.param({"bos_token_id": 99}, [1, 3], id="bos-id-out-of-range"),
    ],
)
def test_tokens_around_a_sentencepiece_prompt(flags: dict[str, Any], expected: list[int]) -> None:
    own = made(model="llama", tokens=["<unk>", "<s>", "</s>", "a"], add_space_prefix=False, **flags)
    assert own.encode("a") == expected


def test_mask_tokens_swallow_the_spaces_before_them() -> None:
    info = {
        "general.architecture": "nomic-bert-moe",
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": ["<unk>", "</s>", "▁a", "<mask>", "▁"],
        "tokenizer.ggml.scores": [0, 0, -1, 0, -2],
        "tokenizer.ggml.token_type": [2, 3, 1, 4, 1],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_eos_token": False,
    }
    assert ModelTokenizer.from_show({"model_info": info}).encode("a  <mask>") == [2, 3]


def test_phi3_is_not_called_exact() -> None:
    info = {
        "general.architecture": "phi3",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a"],
    }
    assert not ModelTokenizer.from_show({"model_info": info}).exact
