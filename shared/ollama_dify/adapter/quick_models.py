"""Framework objects for each token, without validating values that we made ourselves.

Validating a message chunk costs some 4 µs, more than reading the token. pydantic's own `model_construct` and
`model_copy` cost as much, so this code uses how pydantic stores an instance: `__dict__` and three slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel

__all__ = ["quick_constructor"]

M = TypeVar("M", bound=BaseModel)

_IMMUTABLE = (str, int, float, bytes, Enum, type(None))


def quick_constructor(
    construct: Callable[..., M], sample: Mapping[str, Any], other: Mapping[str, Any]
) -> Callable[..., M]:
    """A faster version of `construct`, for arguments of the same types as those of `sample`.

    construct: makes the validated object; its arguments are named like the fields they set, and no other
    field depends on them. sample, other: two sets of arguments. The fast version is made from the first and
    tested with both: if its result differs from that of `construct`, also in `model_fields_set`, `construct`
    is returned. So another version of pydantic or of the framework costs time, never correctness.
    """
    try:
        quick = _learn(construct(**sample), frozenset(sample))
        if all(_is_same(quick(**values), construct(**values)) for values in (sample, other)):
            return quick
    except Exception:  # Whatever a future version raises here, the validated way still works.
        return construct
    return construct


def _learn(sample: M, given: frozenset[str]) -> Callable[..., M]:
    kind = type(sample)
    values: dict[str, Any] = {
        name: None if name in given else value for name, value in sample.__dict__.items()
    }
    # Each object needs lists and dictionaries of its own.
    containers = [(name, value.copy) for name, value in values.items() if _is_container(value)]
    fields_set = sample.model_fields_set.copy()
    extra = sample.__pydantic_extra__
    if sample.__pydantic_private__ is not None:
        raise TypeError("private attributes cannot be learned")
    new, put = kind.__new__, object.__setattr__

    def quick(**changes: Any) -> M:
        own = values.copy()
        for name, copied in containers:
            own[name] = copied()
        own.update(changes)
        made = new(kind)
        put(made, "__dict__", own)
        put(made, "__pydantic_fields_set__", fields_set.copy())
        put(made, "__pydantic_extra__", None if extra is None else dict(extra))
        put(made, "__pydantic_private__", None)
        return made

    return quick


def _is_container(value: Any) -> bool:
    """Whether a value must be copied, one level deep. Raises TypeError for unknown types."""
    if isinstance(value, _IMMUTABLE):
        return False
    if isinstance(value, (dict, list)):
        items = value.values() if isinstance(value, dict) else value
        if all(isinstance(item, _IMMUTABLE) for item in items):
            return True
    raise TypeError(f"a default of type {type(value).__name__} may be shared")


def _is_same(made: BaseModel, validated: BaseModel) -> bool:
    """Whether the two are equal: `==` also compares extra and private values, `repr` compares types."""
    return (
        made == validated
        and repr(made) == repr(validated)
        and made.model_fields_set == validated.model_fields_set
        and made.model_dump() == validated.model_dump()
    )
