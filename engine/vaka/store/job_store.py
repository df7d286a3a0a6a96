"""The job store: every job, how far it got, who has it, and what it said."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import date, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar, Unpack

import trio
from sqlalchemy.engine import Connection

from vaka._supervision import leaves
from vaka.errors import StoreUnavailable
from vaka.models.audit import AuditEntry, AuditQuery
from vaka.models.client_event import ClientEvent, ClientEventQuery, NewClientEvent
from vaka.models.event import Event, Lines
from vaka.models.job import Cause, JobQuery, JobRecord, Phase, StageRecord, Status
from vaka.models.operation import (
    Done,
    NewOperation,
    Operation,
    OperationError,
    OperationQuery,
)
from vaka.models.trigger import NewTrigger, Trigger, TriggerChanges
from vaka.store import (
    _audit,
    _client_events,
    _events,
    _housekeeping,
    _journal,
    _operations,
    _queue,
    _records,
    _statistics,
    _triggers,
)
from vaka.store._database import Database, Transaction
from vaka.store._watch import Hub, Watch, listen
from vaka.store._writer import Writer
from vaka.store.values import (
    NO_EVENTS,
    NOTHING,
    Blocker,
    Fence,
    Kept,
    LogTail,
    NewJob,
    Owner,
    Renewal,
    StageChanges,
    Topic,
)

T = TypeVar("T")

READERS = 4
"""Reads at a time; more wait."""
FEW_EVENTS = 20
"""So many events are packed where they are; more in a thread, because it takes milliseconds."""


class JobStore:
    """Jobs in an SQL database. Open inside `async with`.

    `url` is SQLAlchemy's: `sqlite:////path/to/file` or `postgresql+psycopg://…`. The schema is made
    and migrated when the store opens. A write has returned once it is durable. A cancelled call ends
    at once; a write that was under way by then is completed all the same.

    `clock` replaces the source of time (PostgreSQL's own clock there, the host's on SQLite).
    `patience` is seconds: how long a lock that another process holds is waited for.

    Every method raises `StoreUnavailable` when the database does not answer, is locked for too
    long or has no space left, and methods that take a `fence` raise `LeaseLost`, with nothing written,
    when the job is not its owner's at its attempt any more.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], datetime] | None = None,
        patience: float = 15.0,
    ) -> None:
        self._database = Database(url, clock=clock, readers=READERS, patience=patience)
        self._hub = Hub(self._data_version)
        self._writer = Writer(self._database, self._hub)
        self._readers = trio.CapacityLimiter(READERS)
        self._is_open = False
        self._context: AbstractAsyncContextManager[None] | None = None

    async def __aenter__(self) -> JobStore:
        self._context = self._lifetime()
        await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._context is None:
            raise RuntimeError("the store was not entered")
        try:
            return await self._context.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            if error is None or list(leaves(group)) != list(leaves(error)):
                raise
            return False  # the caller's own error goes on as it was

    @asynccontextmanager
    async def _lifetime(self) -> AsyncGenerator[None, None]:
        database = self._database
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            await trio.to_thread.run_sync(database.open)
            listener = None
            if database.is_postgresql:
                listener = await trio.to_thread.run_sync(database.connect_listener)
                stack.callback(listener.close)
            async with trio.open_nursery() as services:
                await services.start(self._writer.run)
                if listener is not None:
                    services.start_soon(
                        listen, database.connect_listener, listener, database.own_pids, self._hub
                    )
                self._is_open = True
                await self._hub.look()  # from here on another process's write is a change
                try:
                    yield
                finally:
                    self._is_open = False
                    self._writer.close()
                    services.cancel_scope.cancel()  # the writer is shielded: it writes to the end

    async def _close(self) -> None:
        with trio.CancelScope(shield=True):
            # reads whose callers were cancelled may still be under way
            for number in range(READERS):
                await self._readers.acquire_on_behalf_of(number)
            await trio.to_thread.run_sync(self._database.close)

    # -- jobs ------------------------------------------------------------------------------------

    async def submit(self, new: NewJob) -> JobRecord:
        """Store a new job, waiting. A repeated idempotency key gives the job that has it already.

        Raises:
            Conflict: the project has used the idempotency key for another request.
            InvalidInput: a text has characters that the database cannot keep.
        """
        return await self._writer.write(partial(_queue.submit, new=new), queue=True, ids=1)

    async def job(self, job_id: int, project: str | None = None) -> JobRecord:
        """One job with its stages; `NotFound` when it is not there or of another project."""
        return await self._read(_records.job, job_id, project)

    async def token(self, job_id: int) -> str | None:
        """The cipher of an open job's token; None when it came without one, or has ended."""
        return await self._read(_records.token, job_id)

    async def request_hash(self, project: str, idempotency_key: str) -> str | None:
        """The `NewJob.request_hash` of the job that has this key, or None when none has it."""
        return await self._read(_records.request_hash, project, idempotency_key)

    async def jobs(self, query: JobQuery) -> list[JobRecord]:
        """The jobs that match, without their stages; equals in the order are newest first.

        Raises:
            InvalidInput: `query.search` cannot be understood.
        """
        return await self._read(_records.jobs_like, query)

    async def job_groups(self, query: JobQuery) -> list[tuple[str, str | None]]:
        """Component and configuration of the jobs that match, each pair once, in the query's order."""
        return await self._read(_records.job_groups, query)

    async def jobs_of_run(self, run_id: str) -> list[JobRecord]:
        """The jobs of a run and of the runs below it, oldest first."""
        return await self._read(_records.jobs_of_run, run_id)

    async def blocker(self, job_id: int) -> Blocker | None:
        """What of the store's own keeps a waiting job from being claimed; None: nothing does."""
        return await self._read(_records.blocker, job_id)

    async def run_seconds(self, project: str) -> int:
        """Seconds that the finished jobs of a project ran, together."""
        return await self._read(_statistics.run_seconds, project)

    async def daily_run_seconds(
        self, project: str, first: date, last: date, offset: timedelta
    ) -> list[tuple[date, int]]:
        """The same for each day from `first` to `last`, by when jobs ended, `offset` from UTC."""
        return await self._read(_statistics.daily_run_seconds, project, first, last, offset)

    async def counts(self) -> dict[Status, int]:
        """How many jobs there are of each status."""
        return await self._read(_records.counts)

    async def active_jobs(self) -> dict[int, int]:
        """Attempt by id of the jobs that were started and have not ended.

        Only these can have a container or a folder; how many wait makes no difference.
        """
        return await self._read(_records.active_jobs)

    async def images_used(self) -> dict[str, datetime]:
        """When each image was last to be run, by its id."""
        return await self._read(_housekeeping.images_used)

    async def old_logs(self, before: datetime) -> tuple[int, int]:
        """How many jobs that ended before a moment have a log or a journal still, and its bytes."""
        return await self._read(_housekeeping.old_logs, before)

    async def forget_logs(self, before: datetime, limit: int) -> int:
        """Remove the logs and journals of up to `limit` of them; the jobs stay. Returns how many."""
        return await self._writer.write(
            partial(_housekeeping.forget_logs, before=before, limit=limit)
        )

    async def request_stop(
        self, job_id: int, by: Mapping[str, Any], project: str | None = None
    ) -> JobRecord:
        """Cancel a waiting job on the spot; have a running one stopped by its owner.

        The same becomes of the project's open jobs whose run id is below the job's: its children.

        The owner learns of it from `renew`, or at once by a watch on the job. `by` says who asked:
        `id` and `description`. Asking again changes nothing.

        Raises:
            NotFound: there is no such job, or it is of another project.
            Conflict: the job has ended.
        """
        action = partial(_queue.request_stop, job_id=job_id, by=by, project=project)
        return await self._writer.write(action, queue=True)

    async def set_error_note(
        self, job_id: int, note: str | None, project: str | None = None
    ) -> JobRecord:
        """Attach a free text to a job, whatever its status; `NotFound` when it is not there."""
        action = partial(_journal.set_error_note, job_id=job_id, note=note, project=project)
        return await self._writer.write(action)

    async def replace_spec(
        self, job_id: int, before: Mapping[str, Any], spec: Mapping[str, Any]
    ) -> None:
        """Store the spec of a waiting job anew, for instance with its secrets encrypted again.

        Raises:
            Conflict: it is not what it was `before`, or does not wait any more.
        """
        await self._writer.write(
            partial(_queue.replace_spec, job_id=job_id, before=before, spec=spec)
        )

    async def replace_token(self, job_id: int, before: str, token: str) -> None:
        """Store the cipher of an open job's token anew.

        Raises:
            Conflict: it is not what it was `before`, or the job has ended.
        """
        await self._writer.write(
            partial(_queue.replace_token, job_id=job_id, before=before, token=token)
        )

    # -- the audit log ---------------------------------------------------------------------------

    async def append_audit(self, entry: AuditEntry, *, once: bool = False) -> None:
        """Add an entry to the audit log; with `once` only when its token has none of its kind."""
        await self._writer.write(partial(_audit.append, entry=entry, once=once))

    async def audit(self, query: AuditQuery) -> list[AuditEntry]:
        """The entries of the audit log that match, newest first."""
        return await self._read(_audit.find, query)

    # -- claims and leases -----------------------------------------------------------------------

    async def claim(
        self,
        owner: Owner,
        *,
        lease: float,
        concurrency: int,
        memory_bytes: int,
        limit: int = 1,
        waiting: bool = True,
    ) -> list[JobRecord]:
        """Up to `limit` jobs that are now `owner`'s, each with its stages.

        First come running jobs whose owner has died or let go of them, at the attempt and phase
        they are in. Then the oldest waiting jobs whose lock is free, whose project is below its
        limit (or whose parent has no running child), and that fit into `memory_bytes` next to what
        the owner has; a job larger than all of it runs alone. Younger jobs pass one that does not
        fit for five minutes, then wait for it. `concurrency` counts the owner's leases, `lease` is
        seconds. Without `waiting`, only running jobs are claimed. What a cancelled call has claimed
        is released again.
        """
        action = partial(
            _queue.claim,
            owner=owner,
            lease=lease,
            concurrency=concurrency,
            memory_bytes=memory_bytes,
            limit=limit,
            waiting=waiting,
        )

        def undo(tx: Transaction, claimed: list[JobRecord]) -> None:
            for record in claimed:
                _queue.release(tx, Fence(record.id, owner.id, record.attempt))

        return await self._writer.write(action, queue=True, undo=undo)

    async def disown(self, owner: Owner, running: Collection[int]) -> None:
        """Free what `owner` has and does not run: claimed in a transaction whose answer was lost."""
        action = partial(_queue.disown, owner=owner, running=running)
        await self._writer.write(action, queue=True)

    async def renew(self, owner: Owner, lease: float) -> Renewal:
        """Extend all leases of `owner` by `lease` seconds from now, and learn what became of them."""
        return await self._writer.write(partial(_queue.renew, owner=owner, lease=lease))

    async def reserve(
        self, fence: Fence, unit_bytes: int, wanted: int, *, memory_bytes: int
    ) -> int:
        """Let a running job hold the memory of several containers; return of how many.

        At most `wanted`, at least one, and in between as many of `unit_bytes` as are left of
        `memory_bytes` beside what the owner's other jobs hold. Asking again starts anew.
        """
        action = partial(
            _queue.reserve,
            fence=fence,
            unit_bytes=unit_bytes,
            wanted=wanted,
            memory_bytes=memory_bytes,
        )
        return await self._writer.write(action, queue=True)

    async def release(self, fence: Fence) -> None:
        """Give a running job back as it is: it can be claimed at once, and goes on where it was."""
        await self._writer.write(partial(_queue.release, fence=fence), queue=True)

    async def expire_owner(self, owner_id: str) -> None:
        """Free the jobs and operations of an owner that is known to be dead."""

        def expire(tx: Transaction) -> None:
            _queue.expire_owner(tx, owner_id)
            _operations.expire_owner(tx, owner_id)

        await self._writer.write(expire, queue=True)

    # -- the journal of a running job ------------------------------------------------------------

    async def advance(
        self,
        fence: Fence,
        phase: Phase,
        definition: int = 0,
        *,
        keep: Kept = NOTHING,
        tail: LogTail = NO_EVENTS,
    ) -> None:
        """Write down what the job is about to do.

        `keep` and `tail` are stored in the same transaction, here and below: see `save_definition` and
        `append_events`.
        """
        action = partial(
            _journal.advance, fence=fence, phase=phase, definition=definition, keep=keep
        )
        await self._writer.write(await self._with_tail(fence, tail, action))

    async def plan_stage(self, fence: Fence, stage: StageRecord, *, keep: Kept = NOTHING) -> None:
        """Write down a container before it is made, and that the job is at its stages.

        A stage that was started stays as it is.

        Raises:
            ApplicationError: the stage was started already.
        """
        await self._writer.write(partial(_journal.plan_stage, fence=fence, stage=stage, keep=keep))

    async def update_stage(
        self,
        fence: Fence,
        definition: int,
        stage: int,
        *,
        keep: Kept = NOTHING,
        phase: Phase | None = None,
        tail: LogTail = NO_EVENTS,
        **changes: Unpack[StageChanges],
    ) -> None:
        """Write down what became of a stage, `tail` with it, and with `phase` what comes next.

        Raises:
            ApplicationError: the stage was never planned.
            EventsOutOfOrder: as `append_events`.
        """
        action = partial(
            _journal.update_stage,
            fence=fence,
            definition=definition,
            stage=stage,
            changes=changes,
            keep=keep,
            phase=phase,
        )
        await self._writer.write(await self._with_tail(fence, tail, action))

    async def save_definition(
        self, fence: Fence, definition: int, data: Any, *, tail: LogTail = NO_EVENTS
    ) -> None:
        """Keep JSON that a definition leaves for the job's end, in place of what it left before."""
        action = partial(_journal.save_definition, fence=fence, definition=definition, data=data)
        await self._writer.write(await self._with_tail(fence, tail, action))

    async def definitions(self, job_id: int, attempt: int) -> dict[int, Any]:
        """What the definitions of an attempt have left, by their index."""
        return await self._read(_records.kept_definitions, job_id, attempt)

    async def save_usage(
        self,
        fence: Fence,
        entries: Sequence[Mapping[str, Any]],
        definition: int | None = None,
    ) -> None:
        """Add the usage of a definition, None being the one the journal is at, to the job's.

        Saving it again replaces it: a resumed job does not count twice.
        """
        await self._writer.write(
            partial(_journal.save_usage, fence=fence, entries=entries, definition=definition)
        )

    async def restart(self, fence: Fence) -> JobRecord:
        """Begin the next attempt of a running job. The old one's journal stays; its fence is void."""
        return await self._writer.write(partial(_queue.restart, fence=fence))

    async def requeue(self, fence: Fence, *, tail: LogTail = NO_EVENTS) -> JobRecord:
        """Put a running job back among the waiting, its result cleared.

        Raises:
            Conflict: somebody has asked to stop it.
        """
        action = partial(_queue.requeue, fence=fence)
        return await self._writer.write(await self._with_tail(fence, tail, action), queue=True)

    async def finish(
        self,
        fence: Fence,
        status: Status,
        *,
        result: Mapping[str, Any],
        error: Literal["user", "application"] | None = None,
        cause: Cause | None = None,
        metrics: Mapping[str, Any] | None = None,
        tail: LogTail = NO_EVENTS,
    ) -> JobRecord:
        """Write how a running job ended, with its last events, and free its lease: one transaction.

        A final status is never overwritten: its fence is void. `result` has at least `message`.
        """
        if not status.is_finished:
            raise ValueError(f"{status.value} is not how a job ends")
        action = partial(
            _queue.finish,
            fence=fence,
            status=status,
            result=result,
            error=error,
            cause=cause,
            metrics=metrics or {},
        )
        return await self._writer.write(await self._with_tail(fence, tail, action), queue=True)

    # -- events ----------------------------------------------------------------------------------

    async def append_events(
        self,
        job_id: int,
        events: Sequence[Event | Lines],
        *,
        offsets: Mapping[tuple[int, int], tuple[int, int]] | None = None,
        fence: Fence | None = None,
    ) -> None:
        """Put events at the end of a job's log.

        `offsets` says, by definition and stage, how many bytes of (stdout, stderr) the log then
        holds; it is stored together with the events, or not at all. Without a `fence` anybody may
        write, as whoever submits a job does before it runs.

        Raises:
            EventsOutOfOrder: the first number is not the one after `last_seq`.
            NotFound: there is no such job.
        """
        rows = await self._packed(events)
        await self._writer.write(
            partial(_events.append, job_id=job_id, rows=rows, offsets=offsets, fence=fence)
        )

    async def _packed(self, events: Sequence[Event | Lines]) -> list[_events.Packed]:
        if sum(event.count for event in events) <= FEW_EVENTS:
            return _events.pack(events)
        return await trio.to_thread.run_sync(
            _events.pack, events, abandon_on_cancel=True, limiter=self._readers
        )

    async def _with_tail(
        self, fence: Fence, tail: LogTail, action: Callable[[Transaction], T]
    ) -> Callable[[Transaction], T]:
        """`action` after events in the same transaction."""
        if not tail.events and not tail.offsets:
            return action
        append = partial(
            _events.append,
            job_id=fence.job_id,
            rows=await self._packed(tail.events),
            offsets=tail.offsets,
            fence=fence,
        )

        def both(tx: Transaction) -> T:
            append(tx)
            return action(tx)

        return both

    async def last_seq(self, job_id: int) -> int:
        """Number of a job's last event, 0 when it has none."""
        return await self._read(_events.last_seq, job_id)

    async def events(self, job_id: int, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """Up to `limit` events of a job that come after number `after`, in order."""
        return await self._read(_events.page, job_id, after, limit)

    # -- operations on Storage -------------------------------------------------------------------

    async def submit_operation(self, new: NewOperation) -> Operation:
        """Store a new operation, waiting.

        Raises:
            Overloaded: the project has as many open ones as it may.
        """
        return await self._writer.write(partial(_operations.submit, new=new), queue=True, ids=1)

    async def operation(self, operation_id: int, project: str | None = None) -> Operation:
        """One operation; `NotFound` when it is not there or of another project."""
        return await self._read(_operations.operation, operation_id, project)

    async def operations(self, query: OperationQuery) -> list[Operation]:
        """The operations that match, newest first."""
        return await self._read(_operations.operations_like, query)

    async def cached_operation(self, project: str, cache_key: str) -> Operation | None:
        """The project's newest operation that left this key, or None."""
        return await self._read(_operations.cached, project, cache_key)

    async def claim_operations(self, owner: Owner, *, lease: float, limit: int) -> list[Operation]:
        """Up to `limit` operations that are now `owner`'s: the oldest that may begin.

        Among them are those whose engine died, or let its `lease` (seconds) run out, in their place.
        What a cancelled call has claimed is released again.
        """
        action = partial(_operations.claim, owner=owner.id, lease=lease, limit=limit)

        def undo(tx: Transaction, claimed: list[Operation]) -> None:
            for each in claimed:
                _operations.release(tx, Fence(each.id, owner.id, each.attempt))

        return await self._writer.write(action, queue=True, undo=undo)

    async def renew_operations(self, owner: Owner, lease: float) -> frozenset[int]:
        """Extend all that `owner` has by `lease` seconds from now; the ids of it."""
        return await self._writer.write(
            partial(_operations.renew, owner=owner.id, lease=lease), queue=True
        )

    async def disown_operations(self, owner: Owner, under_way: Collection[int]) -> None:
        """Put back what `owner` has and has never begun, as `disown`."""
        action = partial(_operations.disown, owner=owner.id, under_way=under_way)
        await self._writer.write(action, queue=True)

    async def release_operation(self, fence: Fence) -> bool:
        """Put an operation back as if it had not begun; False: it is not its owner's any more."""
        return await self._writer.write(partial(_operations.release, fence=fence), queue=True)

    async def finish_operation(self, fence: Fence, outcome: Done | OperationError) -> bool:
        """Write how an operation ended; False: it is not its owner's any more, nothing is written."""
        action = partial(_operations.finish, fence=fence, outcome=outcome)
        return await self._writer.write(action, queue=True)

    async def forget_operations(self, before: datetime, limit: int) -> int:
        """Remove up to `limit` operations that ended before a moment; return how many."""
        return await self._writer.write(
            partial(_operations.forget, before=before, limit=limit), queue=True
        )

    # -- triggers, clients' events, tickets --------------------------------------------------------

    async def ticket(self) -> int:
        """A number above all that the store has given before, whichever engine asked."""
        return await self._writer.write(lambda tx: next(tx.ids), ids=1)

    async def add_trigger(self, new: NewTrigger) -> Trigger:
        """Keep a trigger; `Overloaded` when the project has as many as it may."""
        return await self._writer.write(partial(_triggers.add, new=new), ids=1)

    async def change_trigger(
        self, trigger_id: int, project: str, changes: TriggerChanges
    ) -> Trigger:
        """Change what is given; `NotFound` when the project has no such trigger."""
        action = partial(_triggers.change, trigger_id=trigger_id, project=project, changes=changes)
        return await self._writer.write(action)

    async def remove_trigger(self, trigger_id: int, project: str) -> None:
        """Forget a trigger; `NotFound` when the project has no such one."""
        await self._writer.write(partial(_triggers.remove, trigger_id=trigger_id, project=project))

    async def mark_trigger(self, trigger: Trigger, now: datetime) -> None:
        """Write down that a trigger ran, unless it has run since it was read."""
        action = partial(_triggers.mark, trigger_id=trigger.id, before=trigger.last_run, now=now)
        await self._writer.write(action)

    async def trigger(self, trigger_id: int, project: str) -> Trigger:
        """One trigger; `NotFound` when the project has none such."""
        return await self._read(_triggers.one, trigger_id, project)

    async def triggers(self, project: str) -> list[Trigger]:
        """All triggers of a project, oldest first."""
        return await self._read(_triggers.of_project, project)

    async def add_client_event(self, new: NewClientEvent) -> ClientEvent:
        """Keep an event; of a project that has very many, its oldest ones go."""
        return await self._writer.write(partial(_client_events.add, new=new), ids=1)

    async def client_event(self, event_id: int, project: str) -> ClientEvent:
        """One event; `NotFound` when the project has none such."""
        return await self._read(_client_events.one, event_id, project)

    async def client_events(self, query: ClientEventQuery) -> list[ClientEvent]:
        """The events that match, newest first."""
        return await self._read(_client_events.like, query)

    async def forget_client_events(self, before: datetime, limit: int) -> int:
        """Remove up to `limit` events that are older than a moment; return how many."""
        return await self._writer.write(partial(_client_events.forget, before=before, limit=limit))

    # -- wake-ups --------------------------------------------------------------------------------

    def watch(self, topic: Topic) -> Watch:
        """A watch on `"jobs"` (a job may have become claimable), `"operations"`, or one of either.

        `("job", id)` changes with the job's status and with every append to its events,
        `("status", id)` with its status alone, `("end", id)` when the status is final, and
        `("operation", id)` when the operation has ended.
        """
        return self._hub.watch(topic)

    # -- threads ---------------------------------------------------------------------------------

    async def _read(self, action: Callable[..., T], *arguments: Any) -> T:
        if not self._is_open:
            raise StoreUnavailable("The job store is closed.")

        def ask(connection: Connection) -> T:
            return action(connection, *arguments)

        return await trio.to_thread.run_sync(
            self._database.read, ask, abandon_on_cancel=True, limiter=self._readers
        )

    async def _data_version(self) -> int | None:
        if not self._is_open or self._database.is_postgresql:
            return None
        return await self._writer.in_thread(self._database.data_version)
