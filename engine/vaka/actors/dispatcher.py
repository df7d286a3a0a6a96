"""The dispatcher: claims what may run, gives each job its actor, and keeps the leases alive.

A slot is a live lease row that the claiming transaction counts; this module keeps no count of its
own that could leak. It sleeps until the store says that something changed, and looks by itself only
for what nobody can tell it: the lease of an engine that died.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from vaka.actors.job import JobActor
from vaka.actors.services import Services
from vaka.errors import StoreUnavailable
from vaka.models.job import JobRecord
from vaka.store import Fence

log = logging.getLogger(__name__)
T = TypeVar("T")

STORE_RETRY = 1.0
"""Seconds before the store is asked again after it did not answer."""


class Dispatcher:
    """Runs the jobs of one engine.

    Jobs are shielded from cancellation around the engine: they end by themselves, by `stop`, or by
    `abandon`, and leases are renewed until `end`. So a job is never cut off between two truths.
    """

    def __init__(self, services: Services) -> None:
        self.running: dict[int, JobActor] = {}
        self._services = services
        self._accepting = True
        self._serving = trio.CancelScope(shield=True)
        self._changed = trio.Event()
        self._is_in_doubt = False
        """Whether jobs may have been claimed without our knowing: the store's answer was lost."""

    def close(self) -> None:
        """Claim nothing more."""
        self._accepting = False

    def end(self) -> None:
        """Renew no leases any more: no job runs."""
        self._serving.cancel()

    async def drained(self) -> None:
        """Return once no job runs here."""
        while self.running:
            await self._changed.wait()

    def stop_run(self, record: JobRecord) -> None:
        """End a job that was asked to stop, and those below its run id, if they run here."""
        below = f"{record.run_id}."
        for actor in self.running.values():
            its = actor.record
            if its.project == record.project and (
                its.id == record.id or its.run_id.startswith(below)
            ):
                actor.stop()

    def stop_all(self) -> None:
        """End all jobs."""
        for actor in self.running.values():
            actor.stop()

    def abandon(self) -> None:
        """Let go of all jobs and leave their containers to whoever claims them next."""
        for actor in self.running.values():
            actor.abandon()

    async def run(
        self,
        jobs: trio.Nursery,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Claim jobs as they may run, run them in `jobs`, and renew their leases, until `end`."""
        with self._serving:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew)
                watch = self._services.store.watch("jobs")
                task_status.started()
                while True:
                    claimed = await self._patiently(self._claim) if self._accepting else None
                    for record in claimed or ():
                        if self._accepting:
                            self._begin(record, jobs)
                        else:  # the engine is leaving since it was asked for: nobody would run it
                            await self._give_back(record)
                    if claimed is None or len(claimed) < self._services.config.concurrency:
                        # no slot is free, or nothing more may run now
                        await watch.changed(self._services.config.idle_poll)

    async def _claim(self) -> list[JobRecord]:
        config, store, owner = self._services.config, self._services.store, self._services.owner
        if self._is_in_doubt:
            await store.disown(owner, list(self.running))
        self._is_in_doubt = True
        claimed = await store.claim(
            owner,
            lease=config.lease,
            concurrency=config.concurrency,
            memory_bytes=config.effective_memory_bytes,
            limit=config.concurrency,
            waiting=await self._services.admission.reason() is None,
        )
        self._is_in_doubt = False
        return claimed

    def _begin(self, record: JobRecord, jobs: trio.Nursery) -> None:
        actor = JobActor(self._services, record)
        self.running[record.id] = actor
        jobs.start_soon(self._supervise, actor)

    async def _give_back(self, record: JobRecord) -> None:
        """Release a job before anything was done for it; else its lease runs out."""
        fence = Fence(record.id, self._services.owner.id, record.attempt)
        with trio.move_on_after(self._services.config.cleanup_timeout, shield=True):
            try:
                await self._services.store.release(fence)
            except StoreUnavailable as error:
                log.warning("job.kept", extra={"job_id": record.id, "error": str(error)})

    async def _supervise(self, actor: JobActor) -> None:
        try:
            with trio.CancelScope(shield=True):
                await actor.run()
        finally:
            del self.running[actor.record.id]
            self._changed.set()
            self._changed = trio.Event()

    async def _renew(self) -> None:
        config = self._services.config
        while True:
            await trio.sleep(config.lease / 3)
            if not self.running:
                continue
            renewal = await self._patiently(self._renew_once)
            if renewal is None:
                continue
            held, stopping = renewal
            for job_id, actor in list(self.running.items()):
                if job_id in stopping:
                    actor.stop()
                elif job_id not in held and actor.seen_by_renewal and not actor.is_over:
                    log.error("lease.lost", extra={"job_id": job_id})
                    actor.abandon()
                actor.seen_by_renewal = True

    async def _renew_once(self) -> tuple[frozenset[int], frozenset[int]]:
        renewal = await self._services.store.renew(
            self._services.owner, lease=self._services.config.lease
        )
        return frozenset(renewal.held), frozenset(renewal.stopping)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What the store answers, or None after a pause when it does not."""
        try:
            return await ask()
        except StoreUnavailable as error:
            log.error("store.unavailable", extra={"error": str(error)})  # noqa: TRY400
            await trio.sleep(STORE_RETRY)
            return None
