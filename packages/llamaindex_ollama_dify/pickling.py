"""Pickling that keeps every setting."""

from __future__ import annotations

import pickle
from typing import Any

from llama_index.core.schema import BaseComponent
from pydantic import BaseModel
from typing_extensions import Self

from ollama_dify.adapter import bound_values

__all__ = ["PickleMixin"]

# Attributes that belong to one process and do not affect an answer.
_LEFT_BEHIND = ("callback_manager", "rate_limiter", "embeddings_cache")


class PickleMixin(BaseComponent):
    """Pickles whole, or raises.

    LlamaIndex's own pickling removes values that cannot be pickled, also from the original object, and
    restores with `__init__`, which would read another machine's environment.
    """

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """The object of a `to_dict`, with changes."""
        return super().from_dict(bound_values(data), **kwargs)

    def __getstate__(self) -> dict[Any, Any]:
        state = super(BaseComponent, self).__getstate__()
        fields = type(self).model_fields
        values = {
            name: fields[name].get_default(call_default_factory=True)
            if name in _LEFT_BEHIND and not _is_picklable(value)
            else value
            for name, value in state["__dict__"].items()
        }
        return {**state, "__dict__": values}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        BaseModel.__setstate__(self, state)


def _is_picklable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # A foreign object may raise anything; it is left out.
        return False
    return True
