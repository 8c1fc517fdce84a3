"""The vocabulary of one model, from `/api/show` with `verbose: true`, with the server's own defaults."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .pretokenizers import PRE_TOKENIZERS, PreTokenizer

Encode = Callable[[str], Sequence[int]]
"""Token ids of a text without special tokens; each family's file builds one from a `Vocabulary`."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5

MAX_ENTRIES = 600_000
"""Maximum number of tokens, and of merges; the largest real ones have 262,144 and 514,906."""
_MAX_CHARACTERS = 1024
"""Maximum characters of one token; a merge may have twice as many and the space between."""
_MAX_SPECIAL = 50_000
"""Maximum number of control, unknown and user-defined tokens: each is searched in every text."""
_MAX_CHARSMAP = 2 * 1024 * 1024
_LARGEST_SCORE = 1e30
"""The server holds scores as 32-bit floats, which end at about 3e38."""

# Ids that llama.cpp assumes if the model names none: (bos, eos, unknown, separator).
_DEFAULT_IDS = {
    "gpt2": (11, 11, None, None),
    "gemma4": (None, 11, None, None),
    "llama": (1, 2, 0, None),
    "bert": (101, None, 100, 102),
    "t5": (None, 1, 2, None),
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

_ENTRIES = Field(max_length=MAX_ENTRIES, fail_fast=True)  # one wrong entry makes one error, not 600,000
_Token = Annotated[str, Field(max_length=_MAX_CHARACTERS)]
_Merge = Annotated[str, Field(max_length=2 * _MAX_CHARACTERS + 1)]
_Score = Annotated[float, Field(gt=-_LARGEST_SCORE, lt=_LARGEST_SCORE)]


class Vocabulary(BaseModel):
    """The keys of `model_info` that counting needs, and values derived from them.

    A server may send anything, so types and sizes are checked strictly. Raises ValueError or KeyError for an
    unusable vocabulary, at once or when a derived value is first read.
    """

    model_config = ConfigDict(strict=True, frozen=True, alias_generator="tokenizer.ggml.{}".format)

    model: Literal["gpt2", "gemma4", "llama", "bert", "t5"]
    pre: str = "default"
    tokens: Annotated[list[_Token], Field(min_length=1), _ENTRIES]
    token_type: Annotated[list[int], _ENTRIES] = []
    scores: Annotated[list[_Score], _ENTRIES] = []
    merges: Annotated[list[_Merge], _ENTRIES] = []
    precompiled_charsmap: Annotated[str | list[int], Field(max_length=_MAX_CHARSMAP)] = ""
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    unknown_token_id: int | None = None
    seperator_token_id: int | None = None  # the format's spelling
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    add_space_prefix: bool | None = None
    remove_extra_whitespaces: bool = False
    lowercase: bool = Field(default=True, alias="tokenizer.ggml.normalizer.lowercase")
    strip_accents: bool | None = Field(default=None, alias="tokenizer.ggml.normalizer.strip_accents")
    architecture: str = Field(default="", alias="general.architecture")
    name: str = Field(default="", alias="general.name")

    @classmethod
    def from_show(cls, show: Mapping[str, Any]) -> Vocabulary:
        """Read a verbose show answer; null counts as absent."""
        return cls.model_validate(
            {key: value for key, value in show["model_info"].items() if value is not None}
        )

    @cached_property
    def rules(self) -> PreTokenizer:
        """How words are cut. The server refuses a model with a name that is not in the table."""
        name = self.pre if self.model == "gpt2" else "gemma4" if self.model == "gemma4" else "default"
        return PRE_TOKENIZERS[name or "default"]

    @cached_property
    def texts(self) -> list[str]:
        """The tokens by id; empty ones get the server's names."""
        return [token or f"[EMPTY_{id}]" for id, token in enumerate(self.tokens)]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each token; the last id if a token occurs twice."""
        return {text: id for id, text in enumerate(self.texts)}

    @cached_property
    def types(self) -> list[int]:
        """The type of each token, as llama.cpp corrects it by the token's text."""
        types = self.token_type[: len(self.tokens)]
        types += [NORMAL] * (len(self.tokens) - len(types))
        control = _CONTROL_TEXTS & self.ids.keys()
        for text in control:
            types[self.ids[text]] = CONTROL
        for text in _USER_DEFINED_TEXTS & self.ids.keys():
            types[self.ids[text]] = USER_DEFINED
        if {"<|tool_response>", "</s>"} <= control:
            types[self.ids["</s>"]] = NORMAL
        return types

    @cached_property
    def special(self) -> list[int]:
        """Ids of the tokens that are found in a text before any model sees it."""
        special = [id for id, type in enumerate(self.types) if type in (UNKNOWN, CONTROL, USER_DEFINED)]
        if len(special) > _MAX_SPECIAL:
            raise ValueError(f"more than {_MAX_SPECIAL} special tokens")
        return special

    @property
    def score_of_each(self) -> Sequence[float]:
        """The scores by id; all zero if some are missing."""
        return self.scores if len(self.scores) >= len(self.tokens) else [0.0] * len(self.tokens)

    @property
    def space_prefix(self) -> bool:
        return self.model in ("llama", "t5") if self.add_space_prefix is None else self.add_space_prefix

    @property
    def charsmap(self) -> bytes:
        """SentencePiece's character map, which arrives as base64 or as numbers."""
        given = self.precompiled_charsmap
        if isinstance(given, str):
            return base64.b64decode(given, validate=True)
        return bytes(number & 0xFF for number in given)

    @property
    def unknown(self) -> int:
        """The id for text that no token matches."""
        return self._id(self.unknown_token_id, 2) or 0

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids that the server puts before and after a prompt."""
        bos = self._id(self.bos_token_id, 0)
        if self.model == "bert":  # framed by [CLS] and [SEP] whatever the flags say
            before, last = True, self._id(self.seperator_token_id, 3)
        else:
            default = self.model == "llama" or self.rules.add_bos
            before = self.rules.as_gemma4 or (default if self.add_bos_token is None else self.add_bos_token)
            ends = self.model == "t5" if self.add_eos_token is None else self.add_eos_token
            last = self._id(self.eos_token_id, 1) if ends else None
        return [bos] if before and bos is not None else [], [] if last is None else [last]

    def _id(self, given: int | None, place: int) -> int | None:
        """The given id, else the default at this index of `_DEFAULT_IDS`; None if no token has this id."""
        default = _DEFAULT_IDS[self.model][place]
        if place == 0 and self.model == "gpt2":
            default = self.rules.bos_id
        size = len(self.tokens)
        if given is not None and 0 <= given < size:
            return given
        return default if default is not None and default < size else None

    @cached_property
    def strips(self) -> tuple[set[int], set[int]]:
        """Special tokens that remove the ASCII spaces before and after them, by names as in llama.cpp."""
        name, mask = self.name.lower(), ""
        if self.pre in ("jina-v2-de", "jina-v2-es", "jina-v2-code") or self.architecture in (
            "nomic-bert-moe",
            "jina-bert-v3",
        ):
            mask = "<mask>"
        elif "phi-3" in name or "phi3" in name:
            kept = ("<unk>", "<s>", "<|endoftext|>")
            return set(), {id for id in self.special if self.texts[id] not in kept}
        elif "modern-bert" in name:
            mask = "[MASK]"
        return {id for text, id in self.ids.items() if text == mask}, set()

    @property
    def exact(self) -> bool:
        """False for Phi-3 without a name, because the server may apply the rule of `strips`."""
        return self.name != "" or self.architecture != "phi3" or self.model != "llama"

    def spells_all(self) -> bool:
        """Whether every text has tokens: byte-pair models that lack a byte count it as zero tokens."""
        if self.model not in ("gpt2", "gemma4"):
            return True
        written = (f"<0x{byte:02X}>" for byte in range(256))
        return self.ids.keys() >= set(byte_characters().values() if self.rules.byte_level else written)


def byte_characters() -> dict[int, str]:
    """GPT-2's character for each byte: printable Latin-1 is unchanged, the rest starts at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + at) for at, byte in enumerate(others)}
