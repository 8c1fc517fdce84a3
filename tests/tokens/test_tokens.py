"""Token ids and counts against what a real server counted, and against slow references."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ollama_dify.tokens.tokenizer import (
    ModelTokenizer,
    TokenEstimator,
    tokenizer_from_show,
)
from ollama_dify.tokens.vocabulary.pretokenizers import PRE_TOKENIZERS
from ollama_dify.tokens.vocabulary.vocabulary import byte_characters

DATA = Path(__file__).parent.parent / "data" / "tokens"
RECORDED: dict[str, Any] = json.loads(gzip.decompress((DATA / "tokenizers.json.gz").read_bytes()))
TEXTS: list[str] = RECORDED["texts"]
NAMES = [name for name, entry in RECORDED["tokenizers"].items() if "ids" in entry]


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
    "show",
    [
        pytest.param({}, id="no-info"),
        pytest.param({"model_info": {"tokenizer.ggml.model": "rwkv"}}, id="kind"),
        pytest.param(
            {"model_info": {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": None}}, id="null"
        ),
        pytest.param(recorded("tok-bpe-unknownpre"), id="unknown-pre"),
    ],
)
def test_what_cannot_be_counted_is_estimated_instead(show: Any) -> None:
    assert isinstance(tokenizer_from_show(show), TokenEstimator)


def test_the_estimator_is_never_below_a_real_count() -> None:
    estimator = TokenEstimator()
    for name in NAMES:
        for text, ids in zip(TEXTS, recorded(name)["special"], strict=True):
            assert not text or estimator.count(text) >= len(ids)


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
        # Armenian and Georgian: capitals are letters to it, small ones are not.
        (
            "deepseek-llm",
            "\u0531\u0532\u0561\u0562 \u10a0\u10d0",
            ["\u0531\u0532", "\u0561\u0562", " ", "\u10a0", "\u10d0"],
        ),
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
