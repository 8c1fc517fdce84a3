"""The lowest and highest sets hold the frameworks alone; what else a table needs is named here."""

from __future__ import annotations

from importlib.util import find_spec

NEEDS = {"test_embedding_parity.py": "chromadb", "test_tracing.py": "opentelemetry"}
collect_ignore = [name for name, package in NEEDS.items() if find_spec(package) is None]


def pytest_terminal_summary(terminalreporter: object) -> None:
    if collect_ignore:
        print(f"not collected, their packages are missing: {', '.join(collect_ignore)}")  # noqa: T201
