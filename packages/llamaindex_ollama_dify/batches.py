"""Embed many texts: which are cached, which are sent together, which failed. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

from llama_index.core.base.embeddings.base import Embedding

from ollama_dify import EmbeddingError

__all__ = ["CACHE_COLLECTION", "BatchJob", "Progress"]

# Called with the number of texts that were finished.
Progress = Callable[[int], object]

# Where LlamaIndex keeps vectors in an `embeddings_cache`.
CACHE_COLLECTION = "embeddings"


class BatchJob:
    """The vectors of `texts`, filled group by group; a group is a list of positions in `texts`."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self._vectors: list[Embedding | None] = [None] * len(self.texts)
        self._open = list(range(len(self.texts)))

    @property
    def vectors(self) -> list[Embedding]:
        """All vectors in order, when every group was kept."""
        return cast(list[Embedding], self._vectors)

    def take_known(self, found: Sequence[Mapping[str, Embedding] | None]) -> None:
        """Take the vectors from a cache, one entry per text: `{some id: vector}`, as LlamaIndex writes it."""
        for index, entry in enumerate(found):
            if entry:
                self._vectors[index] = next(iter(entry.values()))
        self._open = [index for index, entry in enumerate(found) if not entry]

    def groups(self, size: int | None) -> Iterator[list[int]]:
        """The positions without a vector, `size` at a time; None: all at once."""
        step = max(len(self._open), 1) if size is None else size
        for start in range(0, len(self._open), step):
            yield self._open[start : start + step]

    def texts_of(self, group: Sequence[int]) -> list[str]:
        return [self.texts[index] for index in group]

    def keep(self, group: Sequence[int], vectors: Sequence[Embedding | None]) -> None:
        for index, vector in zip(group, vectors, strict=True):
            self._vectors[index] = vector

    def entries(self, group: Sequence[int]) -> list[tuple[str, dict[str, Embedding]]]:
        """Key and entry for a cache, of each position."""
        return [(self.texts[index], {str(uuid.uuid4()): self.vectors[index]}) for index in group]

    @contextmanager
    def naming(self, group: Sequence[int]) -> Generator[None, None, None]:
        """Change an EmbeddingError of a group to positions in all texts, with every vector so far."""
        try:
            yield
        except EmbeddingError as error:
            if len(group) < len(self.texts):
                error.indexes = tuple(group[index] for index in error.indexes)
                places = ", ".join(map(str, error.indexes[:10]))
                error.message = f"In the whole list, text {places}: {error.message}"
            if isinstance(error.partial, list):
                self.keep(group, error.partial)
            error.partial = list(self._vectors)
            raise

    @contextmanager
    def progress(self, shown: bool) -> Generator[Progress, None, None]:
        """LlamaIndex's progress bar; gives the function that moves it on by a number of texts."""
        if not shown:
            yield lambda count: None
            return
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # it has no types

        with tqdm(total=len(self.texts), desc="Generating embeddings") as bar:
            bar.update(len(self.texts) - len(self._open))
            yield bar.update
