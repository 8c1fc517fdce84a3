"""What a server may say of a model, changed at random: a count or an estimate, within bounds."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from ollama_dify import TokenCounter, Tool, assistant, system, user
from ollama_dify.tokens.probes import PROBES
from ollama_dify.tokens.vocabulary.vocabulary import byte_characters

SPELLED = [f"<0x{byte:02X}>" for byte in range(256)]
BYTES = list(byte_characters().values())
TEXTS = ["", "Hello, wörld 東京 🙂\n\n  x", "\x00\ud800 <s> [img-0]", "a" * 300, " \t\n"]
ODD: list[Any] = json.loads(
    r"""[null, true, false, 0, -1, 3, 1e30, 1.5, 1e308, NaN, -Infinity, "", "x", "\ud800", "a b", [], [1],
    ["a"], [null, "a"], [["a"]], [{}], {}, {"a": 1}, [1e308], [-1, 100000000000000000000]]"""
)
ODD += ["a" * 3000, ["a" * 3000], 10**30]
BASES: dict[str, dict[str, Any]] = {
    "bpe": {"model": "gpt2", "pre": "llama-bpe", "tokens": [*BYTES, "ab"], "merges": ["a b"]},
    "gemma4": {"model": "gemma4", "tokens": ["<bos>", "▁", "a", "▁a", *SPELLED], "merges": ["▁ a"]},
    "sentencepiece": {"model": "llama", "tokens": ["<unk>", "<s>", "</s>", "▁a", "▁", "a"]},
    "wordpiece": {"model": "bert", "tokens": ["[UNK]", "[CLS]", "[SEP]", "▁a", "b"]},
    "unigram": {"model": "t5", "tokens": ["<unk>", "</s>", "▁a", "▁"], "precompiled_charsmap": "AAAAAA=="},
}
MORE = {"scores": [0.0] * 6, "token_type": [2, 3, 3, 1, 1, 1], "bos_token_id": 1, "eos_token_id": 2}
_FLAGS = "unknown_token_id seperator_token_id add_bos_token add_space_prefix add_eos_token pre"
FLAGS = _FLAGS.split()


def changed(chance: random.Random, base: dict[str, Any]) -> Any:
    """A description with some of its parts replaced, or parts of these."""
    info = copy.deepcopy({**MORE, **base})
    for _ in range(chance.randint(1, 3)):
        name = chance.choice([*info, *FLAGS])
        value = info.get(name)
        if isinstance(value, list) and value and chance.random() < 0.6:
            value[chance.randrange(len(value))] = copy.deepcopy(chance.choice(ODD))
            if chance.random() < 0.3:
                value *= chance.choice([0, 2, 50])
        else:
            info[name] = copy.deepcopy(chance.choice(ODD))
    show: dict[str, Any] = {"model_info": {f"tokenizer.ggml.{name}": value for name, value in info.items()}}
    show["model_info"]["general.architecture"] = chance.choice([*ODD, "llama", "phi3", "qwen25vl"])
    for name in ("projector_info", "model_info"):
        if chance.random() < 0.1:
            show[name] = copy.deepcopy(chance.choice(ODD))
    return show


@pytest.mark.parametrize("kind", BASES)
def test_a_changed_description_counts_or_is_estimated(kind: str) -> None:
    chance = random.Random(kind)
    for _ in range(300):
        show = changed(chance, BASES[kind])
        counter = TokenCounter.from_show(show)
        for text in TEXTS:
            assert counter.text(text).tokens >= 0, show
            counter.embedding(text)
        assert counter.text("Hello").tokens > 0, show


@pytest.mark.parametrize("kind", BASES)
def test_foreign_renderings_give_a_bound_or_an_estimate(kind: str) -> None:
    """Marks in any order and number, or none."""
    chance = random.Random(kind)
    marks = [f"Zq{number:03d}mark" for number in range(40)]
    marks += ["zq999mark", "ZQ001MARK", "<|x|>", "\n", "{}", ""]
    counter = TokenCounter.from_show(
        {"model_info": {f"tokenizer.ggml.{name}": value for name, value in BASES[kind].items()}}
    )
    talk = [system("S"), user("Hello"), assistant("Hi"), user("Go on.")]
    for _ in range(60):
        rendered = [
            chance.choice([None, "".join(chance.choices(marks, k=chance.randint(0, 60)))]) for _ in PROBES
        ]
        probed = counter.with_renderings(rendered[: chance.randint(0, len(rendered))])
        for tools in ((), (Tool("a"),)):
            bound = probed.bound(talk, tools)
            assert not bound.exact
            assert bound.tokens > 0
