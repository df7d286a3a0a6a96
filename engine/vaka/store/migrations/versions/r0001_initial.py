"""Jobs, their journal, leases and events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counters, [{"name": "ids", "value": 0}])
    _create_jobs()
    op.create_table(
        "job_specs",
        sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
        sa.Column("spec", sa.Text, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
        sa.Column("lock_name", _KEY, nullable=False, unique=True),
        sa.Column("project", _KEY, nullable=False, index=True),
        sa.Column("parent_run_id", _KEY),
        sa.Column("owner", sa.Text, nullable=False, index=True),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "stages",
        sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("definition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stage", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("component", sa.Text, nullable=False),
        sa.Column("container", sa.Text, nullable=False),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("image_id", sa.Text, nullable=False),
        sa.Column("digests", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("planned_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("exit_code", sa.BigInteger),
        sa.Column("oom_killed", sa.Boolean, nullable=False),
        sa.Column("memory_peak_bytes", sa.BigInteger),
        sa.Column("stdout_bytes", sa.BigInteger, nullable=False),
        sa.Column("stderr_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "definitions",
        sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("definition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_table(
        "event_batches",
        sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
        sa.Column("first_seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("run_id", _KEY, nullable=False),
        sa.Column("parent_run_id", _KEY),
        sa.Column("project", _KEY, nullable=False),
        sa.Column("component", sa.Text, nullable=False),
        sa.Column("config", sa.Text),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger),
        sa.Column("ended", sa.BigInteger),
        sa.Column("lock_name", _KEY, nullable=False),
        sa.Column("claim_class", _KEY),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("project_parallelism", sa.BigInteger),
        sa.Column("token_id", sa.Text),
        sa.Column("token_description", sa.Text),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("request_hash", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("host", sa.Text),
        sa.Column("pid", sa.BigInteger),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("phase", sa.Text),
        sa.Column("definition", sa.Integer, nullable=False),
        sa.Column("terminated_by", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("error_note", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("usage", sa.Text),
        sa.Column("metrics", sa.Text),
        sa.Column("cause", sa.Text),
    )
    _index("ix_jobs_claim", ["claim_class", "id"], where="claim_class IS NOT NULL")
    _index(
        "ix_jobs_children",
        ["project", "parent_run_id", "id"],
        where="claim_class IS NOT NULL AND parent_run_id IS NOT NULL",
    )
    _index("ix_jobs_lock", ["lock_name", "id"], where="ended IS NULL")
    _index(
        "uq_jobs_idempotency",
        ["project", "idempotency_key"],
        where="idempotency_key IS NOT NULL",
        unique=True,
    )
    _index("ix_jobs_run_id", ["run_id"])
    _index("ix_jobs_project", ["project", "id"])
    _index("ix_jobs_config", ["project", "component", "config", "id"])
    _index("ix_jobs_status", ["status", "project", "id"])


def _index(
    name: str, columns: list[str], *, where: str | None = None, unique: bool = False
) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        name,
        "jobs",
        columns,
        unique=unique,
        sqlite_where=condition,
        postgresql_where=condition,
    )
