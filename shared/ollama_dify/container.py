"""In what kind of container this process runs, from the marks that each runtime leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

__all__ = ["Container", "container_kind", "file_exists", "read_file"]

Container = Literal["docker", "podman", "kubernetes", "containerd", "lxc"]

_MARKS: tuple[tuple[str, Container], ...] = (
    ("kubepods", "kubernetes"),
    ("/kubelet/pods/", "kubernetes"),
    ("docker", "docker"),
    ("libpod", "podman"),
    ("containers/storage", "podman"),
    ("containerd", "containerd"),
    ("/lxc/", "lxc"),
)


def read_file(path: str) -> str:
    """The text of a file; raises OSError."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def file_exists(path: str) -> bool:
    """Whether there is a file or folder of that name."""
    return Path(path).exists()


def container_kind(
    read_text: Callable[[str], str] = read_file,
    exists: Callable[[str], bool] = file_exists,
    environ: Mapping[str, str] = os.environ,
) -> Container | None:
    """What kind of container this process runs in, None outside one."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if exists("/.dockerenv"):
        return "docker"
    if exists("/run/.containerenv"):
        return "podman"
    lines = [*_lines(read_text, "/proc/1/cgroup"), *_own_mounts(_lines(read_text, "/proc/self/mountinfo"))]
    return next((kind for mark, kind in _MARKS if any(mark in line for line in lines)), None)


def _lines(read_text: Callable[[str], str], path: str) -> list[str]:
    try:
        return read_text(path).splitlines()
    except OSError:
        return []


def _own_mounts(mounts: Sequence[str]) -> list[str]:
    """Mounts that only a container has; a host lists those of the containers that it runs elsewhere."""
    own = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
    rows = [(line.split(" "), line) for line in mounts]
    return [
        line
        for fields, line in rows
        if len(fields) > 4 and (fields[4] in own or (fields[4] == "/" and " overlay " in line))
    ]
