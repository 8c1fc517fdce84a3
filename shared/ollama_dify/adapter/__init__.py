"""Names that only authors of adapters need."""

from ..settings.credentials import bound_values

__all__ = ["bound_values"]
