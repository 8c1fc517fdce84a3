"""The doctor: why Ollama does not answer, or does not do what the settings say, and the one thing to do.

    report = diagnose(settings)      # .ok, .checks (name, state, fact, remedy), str(report)

It changes nothing; only `load=True` makes the server load a model. Other addresses are tried without
credentials, all at the same time, for 1.5 seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..language import _, current_language
from ..language import language as in_language
from ..settings import ConnectionSettings, ModelSettings
from .model import check_model
from .report import Check, Report, State, Trial
from .server import Scene, check_here, check_way
from .world import World

__all__ = ["Check", "Report", "State", "Trial", "World", "adiagnose", "diagnose"]


def diagnose(
    settings: ConnectionSettings | Sequence[ConnectionSettings],
    *,
    language: str | None = None,
    probe: bool = True,
    load: bool = False,
    world: World | None = None,
) -> Report:
    """Check the way to the server, the model and the settings.

    settings: or those of several models on the server of the first.
    language: of the texts; unset: the current one. probe: also try other addresses where Ollama may be.
    load: have the server load the model and answer `ping`, as Dify does on "Save". world: replaces names,
    connections, files and environment in tests.
    """
    every = [settings] if isinstance(settings, ConnectionSettings) else settings
    with in_language(language or current_language()):
        scene = Scene(World() if world is None else world, every[0], probe)
        checks = [check_here(scene), *check_way(scene)]
        is_reached = all(check.state in ("ok", "warn") for check in checks)
        for one in every:
            model = one if isinstance(one, ModelSettings) else None
            skipped = Check("model", "skip", _("not checked"), model=getattr(model, "model", None))
            checks += check_model(scene, model, load=load) if is_reached else [skipped]
        return Report(tuple(checks), current_language())


async def adiagnose(
    settings: ConnectionSettings | Sequence[ConnectionSettings],
    *,
    language: str | None = None,
    probe: bool = True,
    load: bool = False,
    world: World | None = None,
) -> Report:
    """The async twin of `diagnose`."""
    return await asyncio.to_thread(diagnose, settings, language=language, probe=probe, load=load, world=world)
