"""The Storage tokens of jobs that have not ended, encrypted."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "job_tokens",
        sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
        sa.Column("token", sa.Text, nullable=False),
    )
