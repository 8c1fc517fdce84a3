"""What is measured side by side, and the figures read from it.

A scene is one piece of work done by several subjects in turn (A B C A B C …), so that a change of the machine
hits all of them. A figure is the ratio of two subjects in one scene, with the goal it has to reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["FIGURES", "SCENES", "Figure", "Scene"]


@dataclass(frozen=True, slots=True)
class Scene:
    """work: the subject's method. shape: what the server answers. arguments: what the method is told.

    repeat, quick_repeat: how often one sample does the work. memory: peak bytes instead of CPU time. quick:
    whether the quick run does it too.
    """

    name: str
    work: str
    subjects: Sequence[str]
    unit: str = "token"
    shape: dict[str, int] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    repeat: int = 1
    quick_repeat: int = 1
    memory: bool = False
    quick: bool = True


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with a goal, read from a scene; most are `ours` ÷ `other`, per unit.

    how: "ratio"; "inverse", other ÷ ours, a lower bound; "absolute", µs of ours; "growth", ours here ÷ ours
    in `start`, over the same of other; "memory", peak of ours above other's, ÷ the image of `megabytes`.
    other: several subjects count as their sum.
    """

    id: str
    label: str
    scene: str
    ours: str
    other: Sequence[str]
    goal: float
    how: Literal["ratio", "inverse", "absolute", "growth", "memory"] = "ratio"
    start: str = ""
    megabytes: int = 0


_LC, _LI = "langchain", "llamaindex"
_TOKENS = {"tokens": 2000}


def _streams(framework: str) -> list[Scene]:
    sync = [f"{framework} ours", f"{framework} peer", f"{framework} floor", "httpx + orjson", "our client"]
    awaited = [*sync, "aiohttp + orjson"]
    paced = {"tokens": 250, "pace_us": 2000}
    many = [f"{framework} ours", f"{framework} peer"]
    common: dict[str, Any] = {"shape": _TOKENS, "arguments": _TOKENS, "repeat": 5, "quick_repeat": 2}
    return [
        Scene(f"{framework} stream", "stream", sync, **common),
        Scene(f"{framework} astream", "astream", awaited, **common),
        Scene(f"{framework} paced", "stream", sync[:2], shape=paced, arguments=paced, quick=False),
        Scene(f"{framework} apaced", "astream", awaited[:2], shape=paced, arguments=paced),
        *(
            Scene(
                f"{framework} many {streams}",
                "many",
                many,
                shape={"tokens": 100},
                arguments={"tokens": 100, "streams": streams},
                repeat=max(1, 128 // streams),
                quick=framework == _LC and streams != 64,
            )
            for streams in (16, 64, 256)
        ),
        *(
            Scene(
                f"{framework} grow {tokens}",
                "stream",
                [f"{framework} ours", f"{framework} fresh"],
                shape={"tokens": tokens},
                arguments={"tokens": tokens},
                repeat=max(1, 10_000 // tokens),
                quick=False,
            )
            for tokens in (1_000, 10_000, 50_000)
        ),
    ]


def _calls(framework: str) -> list[Scene]:
    subjects = [
        f"{framework} ours",
        f"{framework} peer",
        f"{framework} floor",
        "httpx + orjson",
        "our client",
    ]
    short: dict[str, Any] = {"unit": "call", "shape": {"tokens": 16}, "arguments": {"calls": 100}}
    long: dict[str, Any] = {"unit": "call", "shape": {"tokens": 1000}, "arguments": {"calls": 5}}
    made: dict[str, Any] = {"unit": "object", "shape": {"tokens": 16}, "arguments": {"objects": 10}}
    return [
        Scene(f"{framework} call", "call", subjects, **short),
        Scene(f"{framework} acall", "acall", subjects, **short),
        Scene(f"{framework} long call", "call", subjects[:2], **long),
        Scene(f"{framework} long acall", "acall", subjects[:2], quick=False, **long),
        Scene(f"{framework} construct", "construct", subjects[:3], **made),
        Scene(f"{framework} first call", "first_call", subjects[:2], **made),
    ]


def _embeddings(framework: str, subject: str) -> list[Scene]:
    subjects = [f"{subject} ours", f"{subject} peer", "httpx + orjson"]
    common: dict[str, Any] = {"unit": "text", "arguments": {"count": 2048}}
    made: dict[str, Any] = {"unit": "object", "arguments": {"objects": 10}}
    return [
        Scene(f"{framework} embed", "embed", subjects, **common),
        Scene(f"{framework} aembed", "aembed", subjects, **common),
        Scene(f"{framework} embedding construct", "construct", subjects[:2], quick=False, **made),
    ]


def _images(framework: str) -> list[Scene]:
    subjects = [f"{framework} ours", f"{framework} peer", f"{framework} floor"]
    scenes = []
    for megabytes in (10, 20):
        common: dict[str, Any] = {"unit": "call", "arguments": {"megabytes": megabytes}}
        name = f"{framework} image {megabytes}"
        scenes.append(Scene(name, "call", subjects, quick=framework == _LC and megabytes == 10, **common))
        scenes.append(Scene(f"{name} memory", "call", subjects, memory=True, quick=False, **common))
    return scenes


SCENES: tuple[Scene, ...] = tuple(
    scene
    for framework, embedding in ((_LC, "langchain embeddings"), (_LI, "llamaindex embedding"))
    for scene in (
        *_streams(framework),
        *_calls(framework),
        *_embeddings(framework, embedding),
        *_images(framework),
    )
)


def _ratios(framework: str) -> list[Figure]:
    ours, peer = f"{framework} ours", (f"{framework} peer",)
    title = {_LC: "LangChain", _LI: "LlamaIndex"}[framework]
    id, token = ("F1", 0.50) if framework == _LC else ("F2", 0.55)
    call = 0.65 if framework == _LC else 0.78
    embedding = {_LC: "langchain embeddings", _LI: "llamaindex embedding"}[framework]
    floors = (f"{framework} floor", "httpx + orjson")
    figures = [
        Figure(id, f"{title}, streamed token", f"{framework} stream", ours, peer, token),
        Figure(id, f"{title}, streamed token, async", f"{framework} astream", ours, peer, token),
        Figure("F3", f"{title}, short call", f"{framework} call", ours, peer, call),
        Figure("F3", f"{title}, short call, async", f"{framework} acall", ours, peer, call),
    ]
    if framework == _LC:
        figures += [
            Figure("F3", f"{title}, long call", f"{framework} long call", ours, peer, 0.20),
            Figure("F3", f"{title}, long call, async", f"{framework} long acall", ours, peer, 0.20),
        ]
    for work, suffix in (("embed", ""), ("aembed", ", async")):
        scene, mine = f"{framework} {work}", f"{embedding} ours"
        figures += [
            Figure("F4", f"{title}, embedded text{suffix}", scene, mine, (f"{embedding} peer",), 0.33),
            Figure(
                "F4",
                f"{title}, embedded text{suffix} ÷ httpx + orjson",
                scene,
                mine,
                ("httpx + orjson",),
                1.3,
            ),
        ]
    figures += [
        Figure("F5", f"{title}, construct", f"{framework} construct", ours, (), 1000, "absolute"),
        Figure(
            "F5",
            f"{title}, construct embedding",
            f"{framework} embedding construct",
            f"{embedding} ours",
            (),
            1000,
            "absolute",
        ),
        Figure("F5", f"{title}, another object's first call", f"{framework} first call", ours, peer, 0.03),
        Figure(
            "F7",
            f"{title}, growth of a token's cost from 1,000 to 50,000 ÷ the framework's",
            f"{framework} grow 50000",
            ours,
            (f"{framework} fresh",),
            1.1,
            "growth",
            start=f"{framework} grow 1000",
        ),
    ]
    for size in (10, 20):
        scene, floor = f"{framework} image {size}", (f"{framework} floor",)
        name = f"{title}, image of {size} MB"
        figures += [
            Figure("F8", name, scene, ours, peer, 0.35),
            Figure("F8", f"{name}, memory", f"{scene} memory", ours, floor, 0.2, "memory", megabytes=size),
        ]
    many, paced, name = f"{framework} many", f"{framework} apaced", f"{title}, token every 2 ms"
    stream, astream, whole = f"{framework} stream", f"{framework} astream", f"{title}, token ÷ floors"
    return [
        *figures,
        Figure(
            "F9",
            f"{title}, token in 256 streams ÷ in 16",
            f"{many} 256",
            ours,
            (),
            1.5,
            "growth",
            start=f"{many} 16",
        ),
        Figure("F9", f"{title}, throughput of 256 streams", f"{many} 256", ours, peer, 2.0, "inverse"),
        Figure("F11", name, f"{framework} paced", ours, peer, 0.75),
        Figure("F11", f"{name}, async", paced, ours, peer, 0.90),
        Figure("F12", whole, stream, ours, floors, 1.15),
        Figure("F12", f"{whole}, async", astream, ours, floors, 1.15),
    ]


FIGURES: tuple[Figure, ...] = tuple(
    sorted((*_ratios(_LC), *_ratios(_LI)), key=lambda figure: int(figure.id[1:]))
)
