"""Operations on Storage: accepted, done in order, and shown.

Whoever submits one is answered once it is in the store. This actor claims what may begin, does several
at a time, and writes down how each ended. What it has is leased: when its engine dies, the next one to
start, or another engine on the same store once the lease is over, begins it again. Handlers are made
for that (`vaka.operations`), so an operation takes effect once, or fails and says why.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from vaka._supervision import is_for_want_of_room, leaves, new_exception_id
from vaka.actors.services import Services
from vaka.errors import (
    DeadlineExceeded,
    DiskFull,
    StoreUnavailable,
    UnderMaintenance,
    UserError,
    storage_code,
)
from vaka.models.operation import Done, NewOperation, Operation, OperationError, OperationQuery
from vaka.operations import HANDLERS, IMPORTS, Work
from vaka.store import Fence

log = logging.getLogger(__name__)
T = TypeVar("T")

PROMPT = 0.1
"""Seconds that a caller is kept waiting for a small operation to end."""
MOST_ATTEMPTS = 3
"""Beginnings of one operation: one that ends its engine each time must not do so for ever."""
PARALLELISM_LIMIT = "storage.jobsParallelism"
"""Limit of a project: how many of its operations are done at a time (storage-api.md section 3.1)."""
SWEEP_INTERVAL = 3_600.0
SWEPT_AT_ONCE = 1_000
STORE_RETRY = 1.0
"""Seconds before the store is asked again after it did not answer."""
INTERNAL = "Internal error; attach the exception id."
NO_ROOM = "The server's disk is full; nothing was stored."


class Operations:
    """Accepts operations, and does those of one engine while `run` runs.

    They are shielded from cancellation around the engine: they end by themselves, by their deadline, or
    are put back by `stop`.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._folder = services.config.home / "operations"
        self._running: dict[tuple[int, int], trio.CancelScope] = {}
        """By id and attempt."""

        self._accepting = True
        self._resting_until = 0.0
        self._serving = trio.CancelScope(shield=True)
        self._changed = trio.Event()
        self._is_in_doubt = False
        """Whether some may have been claimed without our knowing: the store's answer was lost."""

    # -- for everybody -------------------------------------------------------------------------

    async def submit(self, new: NewOperation) -> Operation:
        """Accept an operation. Returns once it is durable, and a moment later if it ends meanwhile.

        Raises:
            Overloaded: the project has as many open ones as it may.
        """
        if new.kind not in HANDLERS:
            raise ValueError(f"there is no handler for {new.kind}")
        project = await self._services.catalog.project(new.project)
        if limit := project.limits.get(PARALLELISM_LIMIT):
            new = replace(new, project_parallelism=max(1, int(limit)))
        record = await self._store.submit_operation(new)
        watch = self._store.watch(("operation", record.id))
        with trio.move_on_after(PROMPT):
            record = await self._store.operation(record.id)
            while not record.status.is_finished:
                await watch.changed()
                record = await self._store.operation(record.id)
        return record

    async def operation(self, operation_id: int, *, project: str | None = None) -> Operation:
        """One operation; `NotFound` when it is not there, or of another project."""
        return await self._store.operation(operation_id, project)

    async def operations(self, query: OperationQuery) -> list[Operation]:
        """The operations that match, newest first."""
        return await self._store.operations(query)

    async def wait(self, operation_id: int) -> Operation:
        """Return once an operation has ended, however it ended."""
        watch = self._store.watch(("operation", operation_id))
        while not (record := await self._store.operation(operation_id)).status.is_finished:
            await watch.changed(self._services.config.idle_poll)
        return record

    # -- lifetime ------------------------------------------------------------------------------

    def close(self) -> None:
        """Begin nothing more."""
        self._accepting = False

    async def drained(self) -> None:
        """Return once nothing is under way here."""
        while self._running:
            await self._changed.wait()

    def stop(self) -> None:
        """Leave off with what is under way; whoever works on the store next does it."""
        for scope in self._running.values():
            scope.cancel()

    def end(self) -> None:
        """Renew nothing any more: nothing is under way."""
        self._serving.cancel()

    async def run(
        self,
        nursery: trio.Nursery,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Do operations in `nursery` as they may begin, until `end`."""
        config = self._services.config
        with self._serving:
            await trio.to_thread.run_sync(_remove, self._folder)  # of an engine that was killed
            async with trio.open_nursery() as helpers:
                helpers.start_soon(self._renew)
                helpers.start_soon(self._sweep)
                watch = self._store.watch("operations")
                task_status.started()
                while True:
                    if len(self._running) >= config.operation_concurrency:
                        await self._changed.wait()
                        continue
                    claimed = await self._patiently(self._claim) or []
                    for operation in claimed:
                        self._leave_off({operation.id})  # with an attempt that was taken from us
                        scope = trio.CancelScope(shield=True)
                        self._running[operation.id, operation.attempt] = scope
                        nursery.start_soon(self._supervise, operation, scope)
                    if self._is_resting:
                        await trio.sleep_until(self._resting_until)
                    elif not claimed:
                        await watch.changed(config.idle_poll)

    @property
    def _is_resting(self) -> bool:
        return trio.current_time() < self._resting_until

    async def _claim(self) -> list[Operation]:
        config = self._services.config
        free = config.operation_concurrency - len(self._running)
        if not self._accepting or self._is_resting:
            return []
        owner = self._services.owner
        if self._is_in_doubt:
            await self._store.disown_operations(owner, {number for number, _ in self._running})
        self._is_in_doubt = True
        claimed = await self._store.claim_operations(owner, lease=config.lease, limit=free)
        self._is_in_doubt = False
        return claimed

    async def _renew(self) -> None:
        config = self._services.config
        while True:
            await trio.sleep(config.lease / 3)
            begun = {operation_id for operation_id, _ in self._running}
            if not begun:
                continue
            held = await self._patiently(
                lambda: self._store.renew_operations(self._services.owner, config.lease)
            )
            if held is not None:
                self._leave_off(begun - held)

    def _leave_off(self, lost: Collection[int]) -> None:
        """End what another engine has by now."""
        for (operation_id, _), scope in self._running.items():
            if operation_id in lost:
                log.error("operation.lost", extra={"operation_id": operation_id})
                scope.cancel()

    async def _sweep(self) -> None:
        """Forget what ended, or was said, long ago, now and then."""
        config, store = self._services.config, self._store
        kinds = (
            (config.operation_age, store.forget_operations),
            (config.client_event_age, store.forget_client_events),
        )
        while True:
            for age, forget in kinds:
                if age is not None:
                    before = self._services.now() - timedelta(seconds=age)
                    while await self._patiently(partial(forget, before, SWEPT_AT_ONCE)):
                        pass
            await trio.sleep(SWEEP_INTERVAL)

    # -- one operation -------------------------------------------------------------------------

    async def _supervise(self, operation: Operation, scope: trio.CancelScope) -> None:
        fence = Fence(operation.id, self._services.owner.id, operation.attempt)
        try:
            with scope:
                outcome = await self._outcome(operation)
            if scope.cancelled_caught or outcome is None:
                await self._put_back(fence)
            else:
                await self._finish(operation, fence, outcome)
        finally:
            del self._running[operation.id, operation.attempt]
            self._changed.set()
            self._changed = trio.Event()

    async def _outcome(self, operation: Operation) -> Done | OperationError | None:
        """How an operation ended; None: it has to be done later."""
        folder = self._folder / f"{operation.id}-{operation.attempt}"
        try:
            return await self._handle(operation, folder)
        except UnderMaintenance as error:
            self._resting_until = trio.current_time() + error.retry_after
            return None
        except Exception as error:  # noqa: BLE001 - one operation's failure is its own
            return _told(operation, error)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_remove, folder)

    async def _handle(self, operation: Operation, folder: Path) -> Done:
        done = await self._done(operation, folder)
        if operation.kind in IMPORTS and operation.table_id is not None:
            while not await self._patiently(partial(self._tell, operation)):
                pass
        return done

    async def _tell(self, operation: Operation) -> bool:
        """Say that its table was loaded; True once that is done."""
        assert operation.table_id is not None  # noqa: S101 - of an import
        await self._services.imported(operation.project, [operation.table_id])
        return True

    async def _done(self, operation: Operation, folder: Path) -> Done:
        if operation.attempt > MOST_ATTEMPTS:
            raise UserError(
                f"The operation was begun {MOST_ATTEMPTS} times, and the server ended over it each "
                "time; it is not begun again.",
                code="storage.operationLost",
            )
        await trio.to_thread.run_sync(_make, folder)
        services = self._services
        work = Work(operation, services.storage, services.catalog, self._store, folder)
        seconds = self._services.config.operation_timeout
        with trio.move_on_after(seconds):
            return await HANDLERS[operation.kind](work)
        raise DeadlineExceeded(
            f"The operation took longer than {seconds:g} seconds.",
            seconds=seconds,
            setting="operation_timeout",
            code="storage.timeout",
        )

    async def _finish(
        self, operation: Operation, fence: Fence, outcome: Done | OperationError
    ) -> None:
        """Write the end down, however long the store takes to answer."""
        with trio.CancelScope(shield=True):
            while True:
                is_ours = await self._patiently(
                    lambda: self._store.finish_operation(fence, outcome)
                )
                if is_ours is not None:
                    break
        log.info(
            "operation.finished" if is_ours else "operation.lost",
            extra={
                "operation_id": operation.id,
                "kind": operation.kind,
                "error": outcome.code if isinstance(outcome, OperationError) else None,
            },
        )

    async def _put_back(self, fence: Fence) -> None:
        """Give it back at once; else its lease runs out."""
        with trio.move_on_after(self._services.config.cleanup_timeout, shield=True):
            try:
                await self._store.release_operation(fence)
            except StoreUnavailable as error:
                log.warning(
                    "operation.kept", extra={"operation_id": fence.job_id, "error": str(error)}
                )

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What the store answers, or None after a pause when it does not."""
        try:
            return await ask()
        except StoreUnavailable as error:
            log.error("store.unavailable", extra={"error": str(error)})  # noqa: TRY400
            await trio.sleep(STORE_RETRY)
            return None


def _told(operation: Operation, error: Exception) -> OperationError:
    """What the operation's author is told of an error; the log has it all."""
    fault = next((each for each in leaves(error) if not isinstance(each, UserError)), None)
    exception_id = new_exception_id()
    fields = {
        "operation_id": operation.id,
        "kind": operation.kind,
        "exception_id": exception_id,
        "error": type(fault or error).__name__,
    }
    if isinstance(fault, DiskFull) or (fault is not None and is_for_want_of_room(fault)):
        log.error("operation.failed", extra={**fields, "detail": str(fault)})
        return OperationError("storage.diskFull", NO_ROOM, exception_id)
    if fault is not None:
        log.error("operation.failed", extra=fields, exc_info=error)
        return OperationError("internal", INTERNAL, exception_id)
    first = next(leaves(error))
    assert isinstance(first, UserError)  # noqa: S101 - there is no other
    log.info("operation.refused", extra=fields)
    return OperationError(storage_code(first), first.message, exception_id)


def _make(folder: Path) -> None:
    _remove(folder)
    folder.mkdir(mode=0o700, parents=True)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
