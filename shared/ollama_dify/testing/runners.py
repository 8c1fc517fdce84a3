"""Which models are loaded, how many requests run at once, and who waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import models, wire
from .image_cache import ImageCache
from .models import SimulatedModel
from .responses import refuse

LOAD_TIME_OPTIONS = ("num_ctx", "num_gpu", "num_batch", "num_thread", "main_gpu", "use_mmap")
_CENTURIES_S = 292 * 365.25 * 86_400
_BUSY = "server busy, please try again.  maximum pending requests exceeded"


@dataclass(slots=True)
class Runner:
    """A loaded model."""

    model: SimulatedModel
    context: int
    load_options: Mapping[str, Any]
    slots: asyncio.Semaphore | None
    expires_at: float = 0.0
    busy: int = 0
    images: ImageCache = field(default_factory=ImageCache)


@dataclass(slots=True)
class Runners:
    """The scheduler: at most `max_loaded` models, `parallel` requests per model, `max_queue` waiting."""

    parallel: int | None
    max_queue: int
    max_loaded: int
    default_context: int
    loads: int = 0
    reloads: int = 0
    waiting: int = 0
    loaded: dict[str, Runner] = field(default_factory=dict)

    def load(self, model: SimulatedModel, options: Mapping[str, Any], keep_alive_s: float) -> Runner:
        """The model's runner; other load-time options than before mean a reload."""
        self._forget_expired()
        asked = options.get("num_ctx", model.parameters.get("num_ctx", self.default_context))
        context = max(1, min(int(asked), model.context_length))  # never above what it was trained for
        wanted = {name: options[name] for name in LOAD_TIME_OPTIONS if name in options} | {"num_ctx": context}
        runner = self.loaded.get(model.weights_key)
        if runner is None or runner.load_options != wanted or runner.model is not model:
            self.loads += 1
            self.reloads += runner is not None and runner.model is model
            slots = None if self.parallel is None else asyncio.Semaphore(self.parallel)
            if runner is not None and runner.busy:
                slots = runner.slots
            runner = Runner(model, context, wanted, slots)
            self.loaded[model.weights_key] = runner
            self._make_room(model.weights_key)
        self.touch(runner, keep_alive_s)
        return runner

    def touch(self, runner: Runner, keep_alive_s: float) -> None:
        """Set when the model is unloaded."""
        lasting = _CENTURIES_S if keep_alive_s < 0 else min(keep_alive_s, _CENTURIES_S)
        runner.expires_at = time.time() + lasting

    async def acquire(self, runner: Runner) -> Callable[[], None]:
        """Wait for one of the runner's slots and get its release; with the queue full, the server's 503."""
        slots = runner.slots
        if slots is not None:
            if slots.locked() and self.waiting >= self.max_queue:
                raise refuse(503, _BUSY)
            self.waiting += 1
            try:
                await slots.acquire()
            finally:
                self.waiting -= 1
        runner.busy += 1

        def release() -> None:
            runner.busy -= 1
            if slots is not None:
                slots.release()

        return release

    def listing(self) -> list[dict[str, Any]]:
        """The lines of /api/ps, the one that stays longest first."""
        self._forget_expired()
        longest_first = sorted(self.loaded.values(), key=lambda runner: -runner.expires_at)
        times = [wire.timestamp(int(runner.expires_at * 1e9)) for runner in longest_first]
        return [
            models.ps_entry(runner.model, context=runner.context, expires_at=at)
            for runner, at in zip(longest_first, times, strict=True)
        ]

    def _forget_expired(self) -> None:
        now = time.time()
        self.loaded = {
            name: runner for name, runner in self.loaded.items() if runner.expires_at > now or runner.busy
        }

    def _make_room(self, newest: str) -> None:
        others = ((name, runner) for name, runner in self.loaded.items() if name != newest)
        idle = sorted((runner.expires_at, name) for name, runner in others if not runner.busy)
        surplus = len(self.loaded) - self.max_loaded
        for _, name in idle[: max(0, surplus)]:
            del self.loaded[name]
