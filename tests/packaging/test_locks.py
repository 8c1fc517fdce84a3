"""The locks are closed: installed without resolving, nothing that a pinned package needs is missing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("dev", "demo")
EXTRAS = {"dev": ("all", "demo"), "demo": ("demo",)}
PIN = re.compile(
    r"[a-z0-9.-]+==[\w.+-]+(?: ; [^\\]+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.MULTILINE
)


def text(name: str) -> str:
    return (ROOT / "requirements" / name).read_text("utf-8")


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


@cache
def pins(lock: str) -> dict[str, Version]:
    """What the lock installs in this interpreter's environment."""
    found: dict[str, Version] = {}
    for block in PIN.findall(text(f"{lock}.txt")):
        requirement = Requirement(block.split(" \\\n")[0])
        if applies(requirement):
            assert requirement.name not in found, f"{requirement.name} is pinned twice here"
            found[requirement.name] = Version(str(requirement.specifier).removeprefix("=="))
    return found


def wanted(lock: str) -> Iterator[tuple[str, Requirement]]:
    """Who asks for what: this package with the lock's extras, the lock's own list, every pin."""
    extras: defaultdict[str, set[str]] = defaultdict(set, {"ollama-dify": {"", *EXTRAS[lock]}})
    asked: set[tuple[str, str]] = set()
    open_ = [("ollama-dify", extra) for extra in extras["ollama-dify"]]
    for file in ("build.in", f"{lock}.in"):
        lines = text(file).splitlines() if (ROOT / "requirements" / file).exists() else []
        for line in lines:
            if line and not line.startswith(("#", "-r")):
                yield file, Requirement(line)
    open_ += [(name, "") for name in pins(lock)]
    while open_:
        name, extra = open_.pop()
        if (name, extra) in asked:
            continue
        asked.add((name, extra))
        for line in installed(name).requires or ():
            requirement = Requirement(line)
            if applies(requirement, extra):
                yield name, requirement
                open_ += [(canonicalize_name(requirement.name), more) for more in requirement.extras]


@cache
def installed(name: str) -> Distribution:
    return distribution(name)


@pytest.mark.parametrize("lock", LOCKS)
def test_each_pin_is_installed_as_it_is_pinned(lock: str) -> None:
    """Else what follows would read the requirements of another version."""
    assert len(pins(lock)) > 100
    assert {name: Version(installed(name).version) for name in pins(lock)} == pins(lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_of_every_pin_is_met_by_a_pin(lock: str) -> None:
    have = {**pins(lock), "ollama-dify": Version(installed("ollama-dify").version)}
    open_ends = [
        f"{who} asks for {requirement}, pinned: {have.get(canonicalize_name(requirement.name))}"
        for who, requirement in wanted(lock)
        if applies(requirement)
        and (
            (version := have.get(canonicalize_name(requirement.name))) is None
            or not requirement.specifier.contains(version, prereleases=True)
        )
    ]
    assert open_ends == []


@pytest.mark.parametrize("lock", [*LOCKS, "lowest"])
def test_a_lock_holds_names_versions_and_hashes_only(lock: str) -> None:
    assert PIN.sub("", text(f"{lock}.txt")) == ""
