"""Triggers, and events that clients send."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "triggers",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("project", _KEY, nullable=False, index=True),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("last_run", sa.BigInteger),
        sa.Column("component", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("tables", sa.Text, nullable=False),
        sa.Column("run_with_token_id", sa.Text, nullable=False),
        sa.Column("cool_down_minutes", sa.Integer, nullable=False),
        sa.Column("token_id", sa.Text),
        sa.Column("token_description", sa.Text),
    )
    op.create_table(
        "client_events",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("uuid", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False, index=True),
        sa.Column("project", _KEY, nullable=False),
        sa.Column("component", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("configuration_id", sa.Text, nullable=False),
        sa.Column("run_id", _KEY),
        sa.Column("run_tail", _KEY),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("results", sa.Text, nullable=False),
        sa.Column("duration", sa.BigInteger),
        sa.Column("branch", sa.Text),
        sa.Column("token_id", sa.Text),
        sa.Column("token_description", sa.Text),
    )
    op.create_index("ix_client_events_project", "client_events", ["project", "id"])
    op.create_index("ix_client_events_run", "client_events", ["run_id", "id"])
    op.create_index("ix_client_events_tail", "client_events", ["run_tail", "id"])
