"""Hypothesis as these tests use it: no example has a time limit, since machines differ."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
