"""Reading a prompt: its words, its sentences, which part asks and which part answers."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

_COMMON_WORDS = """
a an and any are as at be been but by can could did do does each for from give given had has have he
her his how i if in into is it its just me my of on or our please say she should show so some tell
than that the their them then there these they this those to up us use using was we were what when
where which who whom whose why will with would you your also about only such not no answer question
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+|(?<=[。！？])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|Dr|Mr|Mrs|Ms|St|No|vs|approx|Fig)\.|\b[A-Z]\.)$")
_QUESTION_LABEL = re.compile(
    r"(?:^|\n)[ \t]*(?:The original (?:query|question) is as follows|Follow[ -]Up (?:Input|Message|Question)|"
    r"User question|Standalone question|Human question|Query|Question|Input|質問|问题)"
    r"[ \t]*[:：][ \t]*(?=\S)",
    re.IGNORECASE,
)
_ANSWER_LABEL = re.compile(
    r"\n[ \t]*(?:(?:Helpful|Refined|Final)? ?Answer|Standalone question|SUMMARY|Response|We have provided|"
    r"回答|答え|答案)"
    r"[ \t]*[:：]?",
    re.IGNORECASE,
)
_RULE = re.compile(r"^[ \t]*-{3,}[ \t]*$", re.MULTILINE)
_INSTRUCTION = re.compile(
    r"^(?:use the following|if you don'?t know|given the|you are |context information|answer the|don'?t try|"
    r"the following is a friendly|the assistant|keep the answer|some rules|always answer|never |avoid |"
    r"here are the relevant|instruction:|based on the|use three sentences|you must|please )",
    re.IGNORECASE,
)
_METADATA = re.compile(r"^(?:#+\s|[\w ]{1,24}:\s*\S*$|file_path:|page_label:|```|\|)")


@functools.lru_cache(maxsize=16_384)
def stem(word: str) -> str:
    """A word without its commonest endings."""
    bare = word.lower().removesuffix("'s").removesuffix("’s")
    for ending in ("ingly", "edly", "ing", "ies", "ed", "es", "ly", "s", "e"):
        if bare.endswith(ending) and len(bare) - len(ending) >= 3:
            return bare[: -len(ending)] + ("y" if ending == "ies" else "")
    return bare


def words(text: str) -> list[str]:
    """The stems that carry meaning, in their order; wide scripts give their character pairs."""
    found: list[str] = []
    for word in _WORD.findall(text):
        wide = _WIDE.findall(word)
        if wide:
            found += [run[i : i + 2] for run in wide for i in range(max(1, len(run) - 1))]
        elif word.lower() not in _COMMON and (len(word) > 1 or word.isdigit()):
            found.append(stem(word))
    return found


def key_words(text: str) -> set[str]:
    return set(words(text))


def sentences(text: str) -> list[str]:
    """Sentences and lines; a wrapped line belongs to the sentence before it."""
    found: list[str] = []
    for block in re.split(
        r"\n\s*\n|\n?^[ \t]*-{3,}[ \t]*$\n?|\n(?=\s*(?:[-*•>#]|\d+[.)])\s)", text, flags=re.MULTILINE
    ):
        unwrapped = " ".join(line.strip() for line in block.splitlines() if line.strip())
        for part in _SENTENCE_END.split(unwrapped):
            part = part.strip()
            if found and part and _ABBREVIATION.search(found[-1]):
                found[-1] = f"{found[-1]} {part}"
            elif part:
                found.append(part)
    return [re.sub(r"^(?:[-*•>]|\d+[.)])\s+", "", sentence) for sentence in found]


def take_apart(text: str) -> tuple[str, str]:
    """Question and context of a prompt: by its labels, by rules of dashes, else by its question mark."""
    labelled = list(_QUESTION_LABEL.finditer(text))
    if labelled:
        start = labelled[-1]
        rest = text[start.end() :]
        end = _ANSWER_LABEL.search(rest)
        question = rest[: end.start()] if end else rest
        others = text[: start.start()] + (rest[end.end() :] if end else "")
        return question.strip(), _between_rules(others)
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if len(paragraphs) > 1:
        asking = [part for part in paragraphs if part.endswith(("?", "？"))]
        question = asking[-1] if asking else min(paragraphs[0], paragraphs[-1], key=len)
        return question, "\n\n".join(part for part in paragraphs if part is not question)
    told = sentences(text)
    asked = [sentence for sentence in told if sentence.endswith(("?", "？"))]
    if asked and len(told) > 1:
        return asked[-1], " ".join(sentence for sentence in told if sentence not in asked)
    return text.strip(), ""


def _between_rules(text: str) -> str:
    rules = list(_RULE.finditer(text))
    if len(rules) >= 2:
        return text[rules[0].end() : rules[-1].start()]
    return text[rules[0].end() :] if rules else text


def best_sentences(question: str, context: str, *, limit: int = 2) -> list[str]:
    """The sentences of the context that share most with the question, in the context's order."""
    asked = key_words(question)
    told = [one for one in sentences(context) if not _INSTRUCTION.match(one) and not _METADATA.match(one)]
    if not asked or not told:
        return []
    stems = [key_words(sentence) for sentence in told]
    spread = {word: sum(word in found for found in stems) for word in asked}
    scores = [
        sum(1.0 / spread[word] ** 0.5 for word in asked & found) / (1.0 + 0.01 * len(found))
        for found in stems
    ]
    best = max(scores)
    if best <= 0.0:
        return []
    ranked = sorted(range(len(told)), key=lambda index: -scores[index])
    chosen = [index for index in ranked[:limit] if scores[index] >= 0.75 * best]
    return list(dict.fromkeys(told[index] for index in sorted(chosen)))


def overlap(text: str, other: str) -> int:
    """How many meaningful words two texts share."""
    return len(key_words(text) & key_words(other))


def most_alike(question: str, options: Sequence[str]) -> int:
    """The index of the option that shares most words with the question."""
    return max(range(len(options)), key=lambda index: overlap(question, options[index]), default=0)


def topic(texts: Iterable[str]) -> str:
    """The meaningful words of texts in their order, for mentioning what was asked."""
    seen: dict[str, None] = {}
    for text in texts:
        for word in _WORD.findall(text):
            if word.lower() not in _COMMON:
                seen[word] = None
    return " ".join(list(seen)[:8])
