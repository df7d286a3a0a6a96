"""Operations on Storage."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "operations",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("project", _KEY, nullable=False),
        sa.Column("branch", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("table_id", _KEY),
        sa.Column("bucket_lock", _KEY),
        sa.Column("table_lock", _KEY),
        sa.Column("run_id", _KEY),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger),
        sa.Column("ended", sa.BigInteger),
        sa.Column("token_id", sa.Text),
        sa.Column("token_description", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("results", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("cache_key", _KEY),
    )
    _index("ix_operations_project", ["project", "id"])
    _index("ix_operations_open", ["id"], where="ended IS NULL")
    _index("ix_operations_lock", ["bucket_lock", "id"], where="ended IS NULL")
    _index("ix_operations_ended", ["ended"])
    _index("ix_operations_cache", ["project", "cache_key", "id"], where="cache_key IS NOT NULL")


def _index(name: str, columns: list[str], *, where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, "operations", columns, sqlite_where=condition, postgresql_where=condition)
