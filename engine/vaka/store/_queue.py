"""The queue: what is submitted, claimed, stopped and finished.

The invariant that all of it keeps: of the open jobs of one lock, at most the oldest runs, and while
it waits it alone has a `claim_class`. So whoever takes a job out of the open ones promotes its
successor in the same transaction (`_promote`), and a claim never looks at a job that its lock blocks.

Every function runs in a transaction that no other change of the queue overlaps.
"""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.errors import Conflict
from vaka.models.job import Cause, JobRecord, Phase, Status
from vaka.store import _records
from vaka.store._database import Transaction
from vaka.store.schema import job_specs, job_tokens, jobs, leases
from vaka.store.values import Fence, LeaseLost, NewJob, Owner, Renewal, of_status

PASSING = timedelta(minutes=5)
"""How long after its submission a job that does not fit into the memory is passed by younger ones.
After that nothing younger is claimed until it fits: a stream of small jobs must not starve it."""

NOBODY = ""
"""Owner of a lease that was let go."""

ONE: sa.ColumnElement[int] = sa.literal_column("1")
"""A limit in the statement itself: for a parameter PostgreSQL plans to read a tenth of the table."""
_OPEN = jobs.c.ended.is_(None)


# -- submitting ------------------------------------------------------------------------------------

_IS_LOCKED = (
    sa.select(jobs.c.id).where(jobs.c.lock_name == sa.bindparam("lock_name"), _OPEN).limit(ONE)
)
_INSERT_JOB = sa.insert(jobs)
_INSERT_SPEC = sa.insert(job_specs)
_INSERT_TOKEN = sa.insert(job_tokens)
_DROP_TOKEN = sa.delete(job_tokens).where(job_tokens.c.job_id == sa.bindparam("dropped"))


def submit(tx: Transaction, new: NewJob) -> JobRecord:
    """Store a job, or find the one that the same request has made before."""
    if new.idempotency_key is not None:
        earlier = _repeated(tx, new)
        if earlier is not None:
            return earlier
    job_id = next(tx.ids)
    parent = new.parent_run_id
    if new.lock_name is None:
        # random: a number could be the id of a configuration, whose jobs have such a lock as well
        lock_name = f"docker-{new.project}-{new.component}-{secrets.token_hex(16)}"
        is_locked = False
    else:
        lock_name = new.lock_name
        is_locked = tx.connection.execute(_IS_LOCKED, {"lock_name": lock_name}).first() is not None
    values: dict[str, Any] = {
        "id": job_id,
        "run_id": f"{parent}.{job_id}" if parent else str(job_id),
        "parent_run_id": parent or None,
        "project": new.project,
        "component": new.component,
        "config": new.config,
        "mode": new.mode.value,
        "status": Status.WAITING.value,
        "created": tx.clock(),
        "lock_name": lock_name,
        "claim_class": (
            None
            if is_locked
            else _claim_class(new.project, new.project_parallelism, new.memory_bytes)
        ),
        "memory_bytes": new.memory_bytes,
        "project_parallelism": new.project_parallelism,
        "token_id": new.token_id,
        "token_description": new.token_description,
        "idempotency_key": new.idempotency_key,
        "request_hash": new.request_hash,
        "host": new.host,
        "pid": new.pid,
        "attempt": 0,
        "definition": 0,
    }
    tx.connection.execute(_INSERT_JOB, values)
    tx.connection.execute(_INSERT_SPEC, {"job_id": job_id, "spec": dict(new.spec)})
    if new.token is not None:
        tx.connection.execute(_INSERT_TOKEN, {"job_id": job_id, "token": new.token})
    if not is_locked:
        tx.topics.add("jobs")
    return JobRecord(
        id=job_id,
        run_id=values["run_id"],
        project=new.project,
        spec=new.spec,
        component=new.component,
        config=new.config,
        status=Status.WAITING,
        mode=new.mode,
        created=values["created"],
        lock_name=lock_name,
        memory_bytes=new.memory_bytes,
        token_id=new.token_id,
        token_description=new.token_description,
        host=new.host,
        pid=new.pid,
    )


def _repeated(tx: Transaction, new: NewJob) -> JobRecord | None:
    """The job that the same request has made; one that is too old loses its key."""
    row = tx.connection.execute(
        sa.select(jobs.c.id, jobs.c.request_hash, jobs.c.created).where(
            jobs.c.project == new.project, jobs.c.idempotency_key == new.idempotency_key
        )
    ).one_or_none()
    if row is None:
        return None
    age = new.idempotency_seconds
    if age is not None and row.created + timedelta(seconds=age) <= tx.clock():
        tx.connection.execute(
            sa.update(jobs).where(jobs.c.id == row.id).values(idempotency_key=None)
        )
        return None
    if row.request_hash != new.request_hash:
        raise Conflict(
            f"Idempotency key {new.idempotency_key!r} was used for another request, which made job "
            f"{row.id}; use a new key for a new request."
        )
    return _records.job(tx.connection, row.id)


def _claim_class(project: str, parallelism: int | None, memory_bytes: int) -> str:
    """Equal for jobs that a claim need not tell apart. Nothing reads its parts."""
    return f"{memory_bytes}" if parallelism is None else f"{memory_bytes} {parallelism} {project}"


# -- claiming --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What is to be known of an open job to decide about it; the columns of `_CANDIDATE`."""

    id: int
    project: str
    project_parallelism: int | None
    parent_run_id: str | None
    memory_bytes: int
    claim_class: str | None
    lock_name: str
    created: datetime
    attempt: int
    status: str


_CANDIDATE: tuple[sa.Column[Any], ...] = (
    jobs.c.id,
    jobs.c.project,
    jobs.c.project_parallelism,
    jobs.c.parent_run_id,
    jobs.c.memory_bytes,
    jobs.c.claim_class,
    jobs.c.lock_name,
    jobs.c.created,
    jobs.c.attempt,
    jobs.c.status,
)
_CLAIMABLE = jobs.c.claim_class.is_not(None)


# Every order below names its key before the id, no key is compared for equality where a limit follows,
# and nothing is joined: each of them let a planner read all jobs, in the order of their ids or to hash
# them.


def _first_of_each(key: sa.Column[Any], condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Id of the oldest claimable job for each value of `key`: two probes of an index per value."""

    def first(column: sa.Column[Any], *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[Any]:
        return (
            sa.select(column)
            .where(condition, *conditions)
            .order_by(key, jobs.c.id)
            .limit(ONE)
            .scalar_subquery()
        )

    some = sa.select(first(key).label("value")).cte("key_values", recursive=True)
    following = first(key, key > some.c.value)
    every = some.union_all(sa.select(following).where(some.c.value.is_not(None)))
    return sa.select(first(jobs.c.id, key >= every.c.value)).where(every.c.value.is_not(None))


def _first_after(key: sa.Column[Any], condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The job that follows number `id` at `key`; perhaps one of the next key."""
    position = sa.tuple_(
        sa.bindparam("key", type_=key.type), sa.bindparam("id", type_=jobs.c.id.type)
    )
    return (
        sa.select(*_CANDIDATE)
        .where(condition, sa.tuple_(key, jobs.c.id) > position)
        .order_by(key, jobs.c.id)
        .limit(ONE)
    )


# apart from the ids: joined, PostgreSQL expects so many that it reads all jobs
_THESE = sa.select(*_CANDIDATE).where(jobs.c.id.in_(sa.bindparam("ids", expanding=True)))
_SOMEBODY_WAITS = sa.select(jobs.c.id).where(_CLAIMABLE).limit(ONE)
_HEADS = _first_of_each(jobs.c.claim_class, _CLAIMABLE)
_NEXT_HEAD = _first_after(jobs.c.claim_class, _CLAIMABLE)
_CHILDREN = _first_of_each(
    jobs.c.parent_run_id,
    _CLAIMABLE & jobs.c.parent_run_id.is_not(None) & (jobs.c.project == sa.bindparam("project")),
)
_RUNNING_OF_PROJECT = sa.select(leases.c.parent_run_id).where(
    leases.c.project == sa.bindparam("project")
)
_HELD = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(leases.c.memory_bytes), 0)).where(
    leases.c.owner == sa.bindparam("owner")
)
_IS_EXPIRED = leases.c.expires <= sa.bindparam("now", type_=leases.c.expires.type)
_ABANDONED = (
    sa.select(leases.c.job_id, leases.c.memory_bytes)
    .where(_IS_EXPIRED, leases.c.owner != sa.bindparam("owner"))
    .order_by(leases.c.job_id)
    .limit(sa.bindparam("slots"))
)
_INSERT_LEASE = sa.insert(leases)
# asked again, because its owner may just have renewed it
_TAKE_LEASE = sa.update(leases).where(leases.c.job_id == sa.bindparam("taken"), _IS_EXPIRED)
_TAKE_JOB = sa.update(jobs).where(jobs.c.id == sa.bindparam("taken"))


@dataclass
class _Project:
    """What runs of a project that has a limit."""

    running: int
    parents: set[str | None]
    children_asked: bool = False


@dataclass
class _Claim:
    """One claim under way: what it may still take, and what it has chosen."""

    connection: Connection
    now: datetime
    jobs_held: int
    memory_held: int
    memory_bytes: int
    projects: dict[str, _Project] = field(default_factory=dict)
    chosen: list[_Candidate] = field(default_factory=list)

    def fits(self, memory_bytes: int) -> bool:
        """Whether so much memory is free; a job that is larger than all of it runs alone."""
        return self.jobs_held == 0 or self.memory_held + memory_bytes <= self.memory_bytes

    def take(self, candidate: _Candidate) -> None:
        self.chosen.append(candidate)
        self.hold(candidate.memory_bytes)
        if candidate.project in self.projects:
            project = self.projects[candidate.project]
            project.running += 1
            project.parents.add(candidate.parent_run_id)

    def hold(self, memory_bytes: int) -> None:
        self.jobs_held += 1
        self.memory_held += memory_bytes

    def project(self, name: str) -> _Project:
        if name not in self.projects:
            rows = self.connection.execute(_RUNNING_OF_PROJECT, {"project": name}).all()
            self.projects[name] = _Project(len(rows), {row.parent_run_id for row in rows})
            for candidate in self.chosen:
                if candidate.project == name:
                    self.projects[name].running += 1
                    self.projects[name].parents.add(candidate.parent_run_id)
        return self.projects[name]


def claim(
    tx: Transaction,
    owner: Owner,
    *,
    lease: float,
    concurrency: int,
    memory_bytes: int,
    limit: int,
    waiting: bool = True,
) -> list[JobRecord]:
    """Jobs that are now `owner`'s: those that lost theirs, then the oldest that may start."""
    held, reserved = tx.connection.execute(_HELD, {"owner": owner.id}).one()
    slots = min(limit, concurrency - held)
    if slots <= 0:
        return []
    now = tx.clock()
    state = _Claim(tx.connection, now, held, int(reserved), memory_bytes)
    lease_values = {
        "owner": owner.id,
        "instance": owner.instance,
        "host": owner.host,
        "pid": owner.pid,
        "expires": now + timedelta(seconds=lease),
    }
    adopted = _adopt(tx, owner, now, slots, lease_values)
    for reserved in adopted.values():
        state.hold(reserved)
    if waiting:
        _choose(state, slots - len(adopted))
    if state.chosen:
        tx.connection.execute(_INSERT_LEASE, [_lease(each) | lease_values for each in state.chosen])
        tx.connection.execute(
            _TAKE_JOB.values(
                status=Status.PROCESSING.value,
                started=now,
                claim_class=None,
                owner=owner.id,
                host=owner.host,
                pid=owner.pid,
                attempt=jobs.c.attempt + 1,
                phase=Phase.CLAIMED.value,
                definition=0,
            ),
            [{"taken": each.id} for each in state.chosen],
        )
    fresh = [each.id for each in state.chosen]
    tx.topics.update(topic for job_id in (*adopted, *fresh) for topic in of_status(job_id))
    return [
        *(_records.job(tx.connection, job_id) for job_id in adopted),
        *(replace(_records.job(tx.connection, job_id), is_fresh=True) for job_id in fresh),
    ]


def _lease(candidate: _Candidate) -> dict[str, Any]:
    return {
        "job_id": candidate.id,
        "lock_name": candidate.lock_name,
        "project": candidate.project,
        "parent_run_id": candidate.parent_run_id,
        "memory_bytes": candidate.memory_bytes,
        "attempt": candidate.attempt + 1,
    }


def _adopt(
    tx: Transaction, owner: Owner, now: datetime, slots: int, lease_values: Mapping[str, Any]
) -> dict[int, int]:
    """Take over jobs that run and are nobody's, as they are; return the memory of each.

    Memory need not be free for them: their containers may be running, and must not be left alone.
    An owner's own leases are never taken over, however late it is with renewing them: it has them.
    """
    adopted = {}
    for job_id, memory_bytes in tx.connection.execute(
        _ABANDONED, {"now": now, "owner": owner.id, "slots": slots}
    ).all():
        taken = tx.connection.execute(
            _TAKE_LEASE.values(**lease_values), {"taken": job_id, "now": now}
        )
        if taken.rowcount:
            tx.connection.execute(
                _TAKE_JOB.values(owner=owner.id, host=owner.host, pid=owner.pid),
                {"taken": job_id},
            )
            adopted[job_id] = memory_bytes
    return adopted


def reserve(tx: Transaction, fence: Fence, unit_bytes: int, wanted: int, memory_bytes: int) -> int:
    """Let a running job hold up to `wanted` times `unit_bytes`, once at least; return how often."""
    require(tx, fence)
    beside = tx.connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(leases.c.memory_bytes), 0)).where(
            leases.c.owner == fence.owner_id, leases.c.job_id != fence.job_id
        )
    ).scalar_one()
    count = max(1, min(wanted, (memory_bytes - int(beside)) // max(1, unit_bytes)))
    tx.connection.execute(
        sa.update(leases)
        .where(leases.c.job_id == fence.job_id)
        .values(memory_bytes=count * unit_bytes)
    )
    return count


def _choose(state: _Claim, slots: int) -> None:
    """Fill `state.chosen` with the oldest waiting jobs that may start together."""
    if slots <= 0:
        return
    heap = [(head.id, False, head) for head in _firsts(state.connection, _HEADS)]
    heapq.heapify(heap)
    while heap and slots > 0:
        _, is_child, candidate = heapq.heappop(heap)
        limit = candidate.project_parallelism
        if limit is not None:
            project = state.project(candidate.project)
            if is_child:
                # the one child that a parent may have beyond the limit
                if candidate.parent_run_id in project.parents:
                    continue
            elif project.running >= limit:
                if not project.children_asked:
                    project.children_asked = True
                    for child in _children(state, candidate.project):
                        heapq.heappush(heap, (child.id, True, child))
                continue
        if not state.fits(candidate.memory_bytes):
            if candidate.created + PASSING < state.now:
                return
            continue
        state.take(candidate)
        slots -= 1
        if not is_child:
            following = state.connection.execute(
                _NEXT_HEAD, {"key": candidate.claim_class, "id": candidate.id}
            ).one_or_none()
            if following is not None and following.claim_class == candidate.claim_class:
                head = _Candidate(*following)
                heapq.heappush(heap, (head.id, False, head))


def _children(state: _Claim, project: str) -> list[_Candidate]:
    """The oldest waiting child of each parent in a full project."""
    chosen = {candidate.id for candidate in state.chosen}
    return [
        child
        for child in _firsts(state.connection, _CHILDREN, project=project)
        if child.project_parallelism is not None and child.id not in chosen
    ]


def _firsts(connection: Connection, query: sa.Select[Any], **values: str) -> list[_Candidate]:
    ids = connection.scalars(query, values).all()
    found = []
    for chunk in (ids[start : start + 500] for start in range(0, len(ids), 500)):
        rows = connection.execute(_THESE, {"ids": chunk})
        found += [_Candidate(*row) for row in rows]
    return found


# -- leases ----------------------------------------------------------------------------------------

_LEASE_OF = sa.select(leases.c.owner, leases.c.attempt).where(
    leases.c.job_id == sa.bindparam("job_id")
)
_LOCKED_LEASE_OF = _LEASE_OF.with_for_update()


def require(tx: Transaction, fence: Fence) -> None:
    """Hold the lease until the transaction ends, or raise `LeaseLost`."""
    row = tx.connection.execute(_LOCKED_LEASE_OF, {"job_id": fence.job_id}).one_or_none()
    if row is None or (row.owner, row.attempt) != (fence.owner_id, fence.attempt):
        holder = "nobody"
        if row is not None and row.owner != NOBODY:
            holder = f"{row.owner} at attempt {row.attempt}"
        raise LeaseLost(
            f"Job {fence.job_id} is not {fence.owner_id}'s at attempt {fence.attempt} any more: "
            f"{holder} has it. What was to be written is dropped.",
            job_id=fence.job_id,
        )


def renew(tx: Transaction, owner: Owner, lease: float) -> Renewal:
    """Extend all leases of `owner`, expired ones too as long as nobody took them."""
    expires = tx.clock() + timedelta(seconds=lease)
    tx.connection.execute(
        sa.update(leases).where(leases.c.owner == owner.id).values(expires=expires)
    )
    rows = tx.connection.execute(
        sa.select(leases.c.job_id, jobs.c.terminated_by.is_not(None))
        .join_from(leases, jobs)
        .where(leases.c.owner == owner.id)
    ).all()
    return Renewal(
        held=frozenset(job_id for job_id, _ in rows),
        stopping=frozenset(job_id for job_id, stopping in rows if stopping),
    )


def expire_owner(tx: Transaction, owner_id: str) -> None:
    """Free the leases of an engine that is known to be dead."""
    if _free(tx, leases.c.owner == owner_id):
        tx.topics.add("jobs")


def disown(tx: Transaction, owner: Owner, running: Collection[int]) -> None:
    """Free what `owner` has claimed and does not run."""
    if _free(tx, sa.and_(leases.c.owner == owner.id, leases.c.job_id.not_in(sorted(running)))):
        tx.topics.add("jobs")


def release(tx: Transaction, fence: Fence) -> None:
    """Give a running job back as it is; who claims it next goes on where it was."""
    require(tx, fence)
    _free(tx, leases.c.job_id == fence.job_id)
    tx.topics.add("jobs")


def _free(tx: Transaction, condition: sa.ColumnElement[bool]) -> int:
    freed = tx.connection.execute(
        sa.update(leases).where(condition).values(owner=NOBODY, expires=tx.clock())
    )
    return freed.rowcount


def _drop_lease(tx: Transaction, job_id: int) -> None:
    """Free what the job has held, and say so if anybody waits for it."""
    tx.connection.execute(_DROP_LEASE, {"dropped": job_id})
    if tx.connection.execute(_SOMEBODY_WAITS).first() is not None:
        tx.topics.add("jobs")


_DROP_LEASE = sa.delete(leases).where(leases.c.job_id == sa.bindparam("dropped"))


# -- the ways out of running -----------------------------------------------------------------------


def restart(tx: Transaction, fence: Fence) -> JobRecord:
    """Begin the next attempt of a running job; the fence of the old one is void."""
    require(tx, fence)
    attempt = fence.attempt + 1
    tx.connection.execute(
        sa.update(leases).where(leases.c.job_id == fence.job_id).values(attempt=attempt)
    )
    tx.connection.execute(
        sa.update(jobs)
        .where(jobs.c.id == fence.job_id)
        .values(attempt=attempt, phase=Phase.CLAIMED.value, definition=0, started=tx.clock())
    )
    tx.topics.update(of_status(fence.job_id))
    return _records.job(tx.connection, fence.job_id)


def requeue(tx: Transaction, fence: Fence) -> JobRecord:
    """Put a running job back among the waiting; its next claim is a new attempt."""
    require(tx, fence)
    row = _locked_row(tx, fence.job_id)
    if row.status != Status.PROCESSING.value:
        raise Conflict(f"Job {fence.job_id} is being stopped and cannot be put back; finish it.")
    tx.connection.execute(
        sa.update(jobs)
        .where(jobs.c.id == fence.job_id)
        .values(
            status=Status.WAITING.value,
            claim_class=_claim_class(row.project, row.project_parallelism, row.memory_bytes),
            started=None,
            owner=None,
            host=None,
            pid=None,
            phase=None,
            definition=0,
            result=None,
        )
    )
    _drop_lease(tx, fence.job_id)
    tx.topics.update(of_status(fence.job_id))
    return _records.job(tx.connection, fence.job_id)


def finish(
    tx: Transaction,
    fence: Fence,
    status: Status,
    *,
    result: Mapping[str, Any],
    error: str | None,
    cause: Cause | None,
    metrics: Mapping[str, Any],
) -> JobRecord:
    """Write how a running job ended, and let go of it."""
    require(tx, fence)
    row = _locked_row(tx, fence.job_id)
    tx.connection.execute(
        _TAKE_JOB,
        {
            "taken": fence.job_id,
            "status": status.value,
            "ended": tx.clock(),
            "phase": Phase.RESULT.value,
            "error": error,
            "result": dict(result),
            "cause": _records.cause_json(cause),
            "metrics": dict(metrics),
        },
    )
    tx.connection.execute(_DROP_TOKEN, {"dropped": fence.job_id})
    _drop_lease(tx, fence.job_id)
    _promote(tx, row.lock_name)
    tx.topics.update(of_status(fence.job_id, ended=True))
    return _records.job(tx.connection, fence.job_id)


def request_stop(
    tx: Transaction, job_id: int, by: Mapping[str, Any], project: str | None
) -> JobRecord:
    """Cancel a waiting job on the spot, mark a running one as to be stopped; so with its children."""
    row = _locked_row(tx, job_id, project)
    if Status(row.status).is_finished:
        raise Conflict(f"Job is not in a killable state: job {job_id} is {row.status} already.")
    _stop(tx, row, by)
    for child in _open_below(tx, row):
        _stop(tx, child, by)
    return _records.job(tx.connection, job_id)


def _stop(tx: Transaction, row: _Candidate, by: Mapping[str, Any]) -> None:
    status = Status(row.status)
    if status is Status.TERMINATING:
        return
    values: dict[str, Any] = {"status": Status.TERMINATING.value, "terminated_by": dict(by)}
    if status is Status.WAITING:
        values["status"] = Status.CANCELLED.value
        values |= {"ended": tx.clock(), "claim_class": None}
        tx.connection.execute(_DROP_TOKEN, {"dropped": row.id})
    tx.connection.execute(sa.update(jobs).where(jobs.c.id == row.id).values(values))
    if row.claim_class is not None:
        _promote(tx, row.lock_name)
    tx.topics.update(of_status(row.id, ended=status is Status.WAITING))


def _open_below(tx: Transaction, row: _Candidate) -> list[_Candidate]:
    """The open jobs of a job's project that it has started, and those that these have."""
    run_id = tx.connection.execute(sa.select(jobs.c.run_id).where(jobs.c.id == row.id)).scalar_one()
    rows = tx.connection.execute(
        sa.select(*_CANDIDATE)
        .where(
            jobs.c.run_id >= f"{run_id}.",
            jobs.c.run_id < f"{run_id}/",  # "/" is what comes after "."
            jobs.c.project == row.project,
            _OPEN,
        )
        .order_by(jobs.c.id.desc())  # a job that a lock kept waiting ends before it is promoted
        .with_for_update()
    )
    return [_Candidate(*each) for each in rows]


_LOCKED_ROW = sa.select(*_CANDIDATE).where(jobs.c.id == sa.bindparam("job_id")).with_for_update()


def replace_spec(
    tx: Transaction, job_id: int, before: Mapping[str, Any], spec: Mapping[str, Any]
) -> None:
    """Store the spec of a job that waits anew; `Conflict` when it is not as `before`."""
    row = _locked_row(tx, job_id)
    found = tx.connection.execute(
        sa.select(job_specs.c.spec).where(job_specs.c.job_id == job_id)
    ).scalar_one()
    if Status(row.status) is not Status.WAITING or found != before:
        raise Conflict(f"Job {job_id} does not wait any more, or was changed.")
    tx.connection.execute(
        sa.update(job_specs).where(job_specs.c.job_id == job_id).values(spec=dict(spec))
    )


def replace_token(tx: Transaction, job_id: int, before: str, token: str) -> None:
    """Store the cipher of an open job's token anew; `Conflict` when it is not `before`."""
    changed = tx.connection.execute(
        sa.update(job_tokens)
        .where(job_tokens.c.job_id == job_id, job_tokens.c.token == before)
        .values(token=token)
    )
    if not changed.rowcount:
        raise Conflict(f"Job {job_id} has ended, or its token was changed.")


def _locked_row(tx: Transaction, job_id: int, project: str | None = None) -> _Candidate:
    if not 0 < job_id <= _records.MAX_ID:
        raise _records.missing(job_id)
    row = tx.connection.execute(_LOCKED_ROW, {"job_id": job_id}).one_or_none()
    if row is None or project not in {None, row.project}:
        raise _records.missing(job_id)
    return _Candidate(*row)


_NEXT_OF_LOCK = _first_after(jobs.c.lock_name, _OPEN)


def _promote(tx: Transaction, lock_name: str) -> None:
    """Make the oldest open job of a lock claimable, now that the one before it is gone."""
    row = tx.connection.execute(_NEXT_OF_LOCK, {"key": lock_name, "id": 0}).one_or_none()
    if row is None or row.lock_name != lock_name:
        return
    claim_class = _claim_class(row.project, row.project_parallelism, row.memory_bytes)
    tx.connection.execute(
        sa.update(jobs).where(jobs.c.id == row.id).values(claim_class=claim_class)
    )
    tx.topics.add("jobs")
