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


def made(architecture: str, **settings: Any) -> ModelTokenizer:
    info = {f"tokenizer.ggml.{name}": value for name, value in settings.items()}
    return ModelTokenizer.from_show({"model_info": {"general.architecture": architecture, **info}})


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_the_servers(name: str) -> None:
    assert (len(NAMES), len(TEXTS)) == (29, 139)
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


def test_a_pre_tokenizer_that_the_server_refuses_is_estimated() -> None:
    assert isinstance(tokenizer_from_show(recorded("tok-bpe-unknownpre")), TokenEstimator)


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
    own = made("llama", model="gpt2", pre=pre, tokens=alphabet, merges=[], add_bos_token=False)
    raw = not PRE_TOKENIZERS[pre].byte_level
    for text in TEXTS:
        text = text.replace("�", "").encode(errors="ignore").decode()
        expected = sum(
            1 if raw and char in alphabet else len(char.encode()) for char in text.replace(" ", "▁")
        )
        assert own.count_text(text) == (expected if raw else len(text.encode())), text


# Vocabularies that no recording holds: keys of the show answer, text, ids.

BYTE_PAIRS = {"model": "gpt2", "tokens": ["a", "b", "ab", "<|im_end|>"], "merges": [], "add_bos_token": False}
GEMMA4 = {
    "model": "gemma4",
    "tokens": ["<bos>", "▁", "a", "▁a", "\n\n", "<0xC3>", "<0xA9>", "\n"],
    "merges": ["▁ a"],
    "bos_token_id": 0,
    "add_bos_token": False,
}
SENTENCES = {"model": "llama", "tokens": ["<unk>", "<s>", "</s>", "a"], "add_space_prefix": False}
MASKED = {
    "model": "t5",
    "tokens": ["<unk>", "</s>", "▁a", "<mask>", "▁"],
    "scores": [0, 0, -1, 0, -2],
    "token_type": [2, 3, 1, 4, 1],
    "unknown_token_id": 0,
    "add_eos_token": False,
}
MADE: dict[str, tuple[dict[str, Any], str, list[int]]] = {
    # "ab" wins over "bc", is no token, and falls apart into its bytes; the server does the same.
    "a merge into no token": (
        {**BYTE_PAIRS, "tokens": ["a", "b", "c", "bc"], "merges": ["a b", "b c"]},
        "abc",
        [0, 1, 2],
    ),
    "a word that is a token, merges ignored": ({**BYTE_PAIRS, "pre": "llama-bpe"}, "ab", [2]),
    "a word that is a token, merges needed": ({**BYTE_PAIRS, "pre": "qwen2"}, "ab", [0, 1]),
    "an end of turn typed as normal": (BYTE_PAIRS, "a<|im_end|>a", [0, 3, 0]),
    "gemma4: spaces, bytes, newlines": (GEMMA4, " a\n\n\né", [0, 3, 7, 7, 7, 5, 6]),
    "gemma4: a run of newlines that is a token": (GEMMA4, " a\n\na", [0, 3, 4, 2]),
    "defaults": (SENTENCES, "a", [1, 3]),
    "no bos": ({**SENTENCES, "add_bos_token": False}, "a", [3]),
    "eos": ({**SENTENCES, "add_eos_token": True}, "a", [1, 3, 2]),
    "another bos": ({**SENTENCES, "bos_token_id": 0}, "a", [0, 3]),
    "a bos out of range": ({**SENTENCES, "bos_token_id": 99}, "a", [1, 3]),
    "a mask removes the spaces before it": (MASKED, "a  <mask>", [2, 3]),
}


@pytest.mark.parametrize("case", MADE)
def test_ids_of_a_made_vocabulary(case: str) -> None:
    settings, text, ids = MADE[case]
    assert made("nomic-bert-moe", **settings).encode(text) == ids


def test_phi3_is_not_called_exact() -> None:
    assert not made("phi3", **SENTENCES).exact
