"""Whether an engine can work now: what the store, the container runtime and the disk answer.

Who asks again and again, such as a load balancer, waits a second or so at most, and a daemon with
seventy containers to start takes longer for its answer than that. So what is asked goes on behind the
answer, once for however many ask, and the last answer stands in for the next one for a few seconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

from vaka.actors.admission import DiskState
from vaka.actors.services import Services
from vaka.errors import ApplicationError, EngineError
from vaka.models.job import Status

log = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds that each part has for its answer."""
GOOD_FOR = 15.0
"""Seconds that an answer may stand in for the next one, so that who asks every ten does not wait."""
PATIENCE = 0.05
"""Seconds that are waited for a new answer while there is a good one."""
PATIENCE_IF_BAD = 1.0
"""Seconds that are waited for a new answer while there is a bad one: all may be well again."""


@dataclass(frozen=True, slots=True)
class Health:
    """What keeps the engine from working; None is fine, else the reason."""

    store: str | None
    runtime: str | None
    disk: str | None
    warnings: tuple[str, ...] = ()
    """What will keep it from working unless somebody does something about it."""

    @property
    def ok(self) -> bool:
        return self.store is None and self.runtime is None and self.disk is None


class HealthCheck:
    """Asks the parts of one engine how they are, in a nursery that outlives whoever wants to know."""

    def __init__(self, services: Services, nursery: trio.Nursery) -> None:
        self._services = services
        self._nursery = nursery
        self._answered: trio.Event | None = None
        self._last: Health | None = None
        self._learnt = -math.inf

    async def now(self) -> Health:
        """How the parts are; while that takes long, how they were at most `GOOD_FOR` seconds ago."""
        answered = self._answered
        if answered is None:
            answered = trio.Event()
            self._nursery.start_soon(self._ask, answered)
            self._answered = answered
        with trio.move_on_after(self._patience()):
            await answered.wait()
        if self._last is None:
            raise ApplicationError("The engine is being closed.")
        return self._last

    def _patience(self) -> float:
        if self._last is None or trio.current_time() - self._learnt >= GOOD_FOR:
            return math.inf
        return PATIENCE if self._last.ok else PATIENCE_IF_BAD

    async def _ask(self, answered: trio.Event) -> None:
        try:
            self._last = await self._health()
            self._learnt = trio.current_time()
        finally:
            self._answered = None
            answered.set()

    async def _health(self) -> Health:
        services = self._services
        is_worker = services.config.worker
        reasons: dict[str, str | None] = {}
        counts: dict[Status, int] = {}
        disk = DiskState()

        async def ask(part: str, question: Callable[[], Awaitable[object]]) -> None:
            reasons[part] = await _reason(question)

        async def count() -> None:
            counts.update(await services.store.counts())

        async def look() -> None:
            nonlocal disk
            disk = await services.admission.disk()

        async with trio.open_nursery() as questions:
            questions.start_soon(ask, "store", count)
            if is_worker:
                questions.start_soon(ask, "runtime", services.runtime.info)
            questions.start_soon(ask, "disk", look)
        warnings = [disk.warns] if disk.warns and not disk.stops else []
        if not is_worker and reasons["store"] is None:
            warnings += _nobody_works(counts)
        return Health(
            store=reasons["store"],
            runtime=reasons.get("runtime"),
            disk=reasons["disk"] or disk.stops,
            warnings=tuple(warnings),
        )


async def _reason(question: Callable[[], Awaitable[object]]) -> str | None:
    """None when the question is answered in time, else why it is not."""
    try:
        with trio.fail_after(TIMEOUT):
            await question()
    except EngineError as error:
        return str(error)
    except trio.TooSlowError:
        return f"no answer within {TIMEOUT:g} s"
    except Exception as error:  # a plugin's mistake; it ends neither the engine nor the answer
        log.exception("health.failed")
        return f"{type(error).__name__}: {error}"
    return None


def _nobody_works(counts: Mapping[Status, int]) -> list[str]:
    """A warning, when jobs wait and none runs, for an engine that runs none itself."""
    waiting = counts.get(Status.WAITING, 0)
    if not waiting or counts.get(Status.PROCESSING, 0) or counts.get(Status.TERMINATING, 0):
        return []
    jobs = "1 job waits" if waiting == 1 else f"{waiting} jobs wait"
    return [
        f"{jobs} and none runs. This engine runs none itself: is there one that does (`vaka worker`) on "
        "this job store?"
    ]
