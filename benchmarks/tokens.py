"""What counting costs: `python -m benchmarks.tokens` prints a small table. Needs no server.

The vocabulary has as many tokens and merges as a large model's: 128,256 made of every pair of shorter ones.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from ollama_dify import TokenCounter
from ollama_dify.tokens.vocabulary.vocabulary import byte_characters

TEXT_BYTES = 100_000
SIZES = (32_000, 128_256, 256_000)
_WORDS = "the of and to in a is that for it as was with be by on not he his but at are this have from or had"


def vocabulary(size: int) -> dict[str, Any]:
    """A verbose /api/show answer with a byte-level vocabulary of `size` tokens."""
    chance = random.Random(7)
    letters = list(byte_characters().values())
    tokens = list(letters)
    known = set(tokens)
    merges: list[str] = []
    short = [letter for letter in letters[:94] if letter.isalpha()] + ["Ġ"]
    pairs = itertools.product(short, repeat=2)
    while len(tokens) < size - 3:
        left, right = next(pairs, None) or (chance.choice(tokens), chance.choice(short))
        if left + right not in known and len(left + right) < 16:
            known.add(left + right)
            tokens.append(left + right)
            merges.append(f"{left} {right}")
    tokens += ["<|begin|>", "<|end|>", "<|eot|>"]
    kinds = [1] * (size - 3) + [3] * 3
    info = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": size - 3,
        "tokenizer.ggml.eos_token_id": size - 2,
    }
    return {"template": "{{ .Prompt }}", "model_info": info, "capabilities": ["completion"]}


def text(size: int) -> str:
    """English-like words, `size` bytes of them, few repeated in the same order."""
    chance = random.Random(11)
    words = _WORDS.split()
    made = [
        chance.choice(words) if chance.random() < 0.5 else "".join(chance.choices("etaoinshrdlu", k=6))
        for _ in range(size)
    ]
    return " ".join(made)[:size]


def timed(work: Callable[[], Any], times: int) -> float:
    """Milliseconds, the median of some runs."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    counted = text(TEXT_BYTES)
    print(f"{'vocabulary':>12} {'first use':>12} {'100 kB':>10} {'tokens':>10}")
    for size in SIZES:
        show = vocabulary(size)
        counter = TokenCounter.from_show(show)
        first = timed(lambda show=show: TokenCounter.from_show(show).text("a"), min(runs, 3))  # type: ignore[misc]  # bound now
        took = timed(lambda counter=counter: counter.text(counted), runs)  # type: ignore[misc]  # bound now
        print(f"{size:>12,} {first:>9.0f} ms {took:>7.1f} ms {counter.text(counted).tokens:>10,}")
    print("bars: first use of 128,256 tokens under 2,000 ms; 100 kB under 100 ms")


if __name__ == "__main__":
    main()
