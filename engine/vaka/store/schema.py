"""The tables of the job store, the same on SQLite and PostgreSQL.

Migrations build them; a test compares the two. Moments are microseconds since 1970, so that both
databases compare them exactly. JSON is text, so that key order and every character survive.

What a claim reads must not grow with the queue:

* `claim_class` is set only while a job is waiting *and* is the oldest open job of its lock. Jobs of
  equal class are alike to a claim (same memory, same project limit), so it looks at the first of
  each class, however many wait behind it.
* `ended` is NULL while a job is open, that is, waiting or running.
* A running job has a row in `leases` from its claim to its end, with owner `""` while it is
  nobody's. So what runs is read from there, and never looked for among all jobs.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 of an aware moment."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The moment that is so many microseconds after 1970, in UTC."""
    return _EPOCH + micros * _MICROSECOND


class Moment(TypeDecorator[datetime]):
    """An aware moment, stored as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else from_micros(value)


class Json(TypeDecorator[Any]):
    """A JSON value as pure ASCII text: neither database takes every character in its text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        return None if value is None else json.loads(value)


# SQLite grows its integer primary key by itself only for this very type name
Id = BigInteger().with_variant(Integer(), "sqlite")
# compared byte by byte on both, for ranges over names
Key = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("run_id", Key, nullable=False),
    Column("parent_run_id", Key),
    Column("project", Key, nullable=False),
    Column("component", Text, nullable=False),
    Column("config", Text),
    Column("mode", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("started", Moment),
    Column("ended", Moment),
    Column("lock_name", Key, nullable=False),
    Column("claim_class", Key),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("project_parallelism", BigInteger),
    Column("token_id", Text),
    Column("token_description", Text),
    Column("idempotency_key", Text),
    Column("request_hash", Text),
    Column("owner", Text),
    Column("host", Text),
    Column("pid", BigInteger),
    Column("attempt", Integer, nullable=False),
    Column("phase", Text),
    Column("definition", Integer, nullable=False),
    Column("terminated_by", Json),
    Column("error", Text),
    Column("error_note", Text),
    Column("result", Json),
    Column("usage", Json),
    Column("metrics", Json),
    Column("cause", Json),
)

Index(
    "ix_jobs_claim",
    jobs.c.claim_class,
    jobs.c.id,
    sqlite_where=jobs.c.claim_class.is_not(None),
    postgresql_where=jobs.c.claim_class.is_not(None),
)
Index(
    "ix_jobs_children",
    jobs.c.project,
    jobs.c.parent_run_id,
    jobs.c.id,
    sqlite_where=jobs.c.claim_class.is_not(None) & jobs.c.parent_run_id.is_not(None),
    postgresql_where=jobs.c.claim_class.is_not(None) & jobs.c.parent_run_id.is_not(None),
)
Index(
    "ix_jobs_lock",
    jobs.c.lock_name,
    jobs.c.id,
    sqlite_where=jobs.c.ended.is_(None),
    postgresql_where=jobs.c.ended.is_(None),
)
Index(
    "uq_jobs_idempotency",
    jobs.c.project,
    jobs.c.idempotency_key,
    unique=True,
    sqlite_where=jobs.c.idempotency_key.is_not(None),
    postgresql_where=jobs.c.idempotency_key.is_not(None),
)
Index("ix_jobs_run_id", jobs.c.run_id)
Index("ix_jobs_project", jobs.c.project, jobs.c.id)
Index("ix_jobs_config", jobs.c.project, jobs.c.component, jobs.c.config, jobs.c.id)
Index("ix_jobs_status", jobs.c.status, jobs.c.project, jobs.c.id)

job_specs = Table(
    "job_specs",
    metadata,
    # apart from `jobs`: a row that is written often must not carry a long document
    Column("job_id", Id, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("spec", Json, nullable=False),
)

job_tokens = Table(
    "job_tokens",
    metadata,
    # apart from everything that is shown, and gone when its job ends
    Column("job_id", Id, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("token", Text, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("lock_name", Key, nullable=False, unique=True),
    Column("project", Key, nullable=False, index=True),
    Column("parent_run_id", Key),
    Column("owner", Text, nullable=False, index=True),
    Column("instance", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("expires", Moment, nullable=False),
)

stages = Table(
    "stages",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("definition", Integer, primary_key=True, autoincrement=False),
    Column("stage", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("component", Text, nullable=False),
    Column("container", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("image_id", Text, nullable=False),
    Column("digests", Json, nullable=False),
    Column("status", Text, nullable=False),
    Column("planned_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("exit_code", BigInteger),
    Column("oom_killed", Boolean, nullable=False),
    Column("memory_peak_bytes", BigInteger),
    Column("stdout_bytes", BigInteger, nullable=False),
    Column("stderr_bytes", BigInteger, nullable=False),
)

definitions = Table(
    "definitions",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("definition", Integer, primary_key=True, autoincrement=False),
    Column("data", Json, nullable=False),
)

event_batches = Table(
    "event_batches",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    # JSON lines, compressed with zlib
    Column("data", LargeBinary, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("project", Key, nullable=False),
    Column("branch", Text),
    Column("kind", Text, nullable=False),
    Column("params", Json, nullable=False),
    Column("table_id", Key),
    # what it has for itself: the bucket with all its tables, or one table of it
    Column("bucket_lock", Key),
    Column("table_lock", Key),
    Column("run_id", Key),
    Column("status", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("started", Moment),
    Column("ended", Moment),
    Column("token_id", Text),
    Column("token_description", Text),
    Column("owner", Text),
    Column("attempt", Integer, nullable=False),
    Column("expires", Moment),
    Column("results", Json),
    Column("error", Json),
    Column("cache_key", Key),
    # how many of the project may be done at a time; null: as many as there are
    Column("project_parallelism", BigInteger),
)
_IS_OPEN = operations.c.ended.is_(None)
Index("ix_operations_project", operations.c.project, operations.c.id)
Index(
    "ix_operations_open",
    operations.c.id,
    sqlite_where=_IS_OPEN,
    postgresql_where=_IS_OPEN,
)
Index(
    "ix_operations_lock",
    operations.c.bucket_lock,
    operations.c.id,
    sqlite_where=_IS_OPEN,
    postgresql_where=_IS_OPEN,
)
Index("ix_operations_ended", operations.c.ended)
Index(
    "ix_operations_cache",
    operations.c.project,
    operations.c.cache_key,
    operations.c.id,
    sqlite_where=operations.c.cache_key.is_not(None),
    postgresql_where=operations.c.cache_key.is_not(None),
)

# Only ever added to: triggers, which are in the migration, refuse to change or remove a row.
audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("moment", Moment, nullable=False),
    Column("kind", Text, nullable=False),
    Column("project", Key),
    Column("token_id", Text),
    Column("token_description", Text),
    Column("address", Text),
    Column("subject", Json, nullable=False),
    # the token that it was done to
    Column("subject_token", Text),
    Column("detail", Json, nullable=False),
    Index("ix_audit_project", "project", "id"),
    Index("ix_audit_token", "project", "token_id", "kind"),
)

triggers = Table(
    "triggers",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("project", Key, nullable=False, index=True),
    Column("created", Moment, nullable=False),
    Column("last_run", Moment),
    Column("component", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("tables", Json, nullable=False),
    Column("run_with_token_id", Text, nullable=False),
    Column("cool_down_minutes", Integer, nullable=False),
    Column("token_id", Text),
    Column("token_description", Text),
)

client_events = Table(
    "client_events",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("uuid", Text, nullable=False),
    Column("created", Moment, nullable=False, index=True),
    Column("project", Key, nullable=False),
    Column("component", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("configuration_id", Text, nullable=False),
    Column("run_id", Key),
    # what comes after the last dot of it
    Column("run_tail", Key),
    Column("params", Json, nullable=False),
    Column("results", Json, nullable=False),
    Column("duration", BigInteger),
    Column("branch", Text),
    Column("token_id", Text),
    Column("token_description", Text),
)
Index("ix_client_events_project", client_events.c.project, client_events.c.id)
Index("ix_client_events_run", client_events.c.run_id, client_events.c.id)
Index("ix_client_events_tail", client_events.c.run_tail, client_events.c.id)
