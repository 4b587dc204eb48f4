"""Virtual machines that run, or ran, from their images."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "instant_recoveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("hypervisor", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("begun_ns", sa.BigInteger(), nullable=False),
        sa.Column("begun_by", sa.Text(), nullable=False),
        sa.Column("was_up", sa.Boolean(), nullable=False),
        sa.Column("serve_job", sa.BigInteger()),
        sa.Column("migrate_job", sa.BigInteger()),
        sa.Column("discard_job", sa.BigInteger()),
        sa.Column("ended_ns", sa.BigInteger()),
        sa.Column("ending", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_instant_recoveries"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_instant_recoveries_ended_ns", "instant_recoveries", ["ended_ns"])
