"""How many operations of a project may be done at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("operations", sa.Column("project_parallelism", sa.BigInteger))
