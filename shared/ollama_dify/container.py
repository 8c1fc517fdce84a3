"""In what kind of container this process runs, from the files and variables that each runtime creates."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

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
_OWN_MOUNTS = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


def read_file(path: str) -> str:
    """The text of a file; raises OSError."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def text_of(read_text: Callable[[str], str], path: str) -> str | None:
    """The text of a file; "" without permission to read it, None if there is no such file."""
    try:
        return read_text(path)
    except PermissionError:
        return ""
    except OSError:
        return None


def container_kind(
    read_text: Callable[[str], str] = read_file, environ: Mapping[str, str] = os.environ
) -> Container | None:
    """What kind of container this process runs in, None outside one."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if text_of(read_text, "/.dockerenv") is not None:
        return "docker"
    if text_of(read_text, "/run/.containerenv") is not None:
        return "podman"
    lines = (text_of(read_text, "/proc/1/cgroup") or "").splitlines()
    for line in (text_of(read_text, "/proc/self/mountinfo") or "").splitlines():
        place = line.split(" ")[4:5]
        # A host lists the mounts of its containers too; only a container has these itself.
        if place and (place[0] in _OWN_MOUNTS or (place[0] == "/" and " overlay " in line)):
            lines.append(line)
    return next((kind for mark, kind in _MARKS if any(mark in line for line in lines)), None)
