"""Hypervisors, and the virtual machines that were found on them."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hypervisors",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("proxy", sa.Text()),
        sa.Column("sealed_credentials", sa.LargeBinary()),
        sa.Column("per_host", sa.Integer(), nullable=False),
        sa.Column("per_datastore", sa.Integer(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("looked_ns", sa.BigInteger()),
        sa.Column("tried_ns", sa.BigInteger()),
        sa.Column("problem", sa.Text()),
        sa.PrimaryKeyConstraint("name", name="pk_hypervisors"),
    )
    op.create_table(
        "virtual_machines",
        sa.Column("hypervisor", sa.Text(), nullable=False),
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("first_seen_ns", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_ns", sa.BigInteger(), nullable=False),
        sa.Column("is_there", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["hypervisor"],
            ["hypervisors.name"],
            name="fk_virtual_machines_hypervisor_hypervisors",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("hypervisor", "uuid", name="pk_virtual_machines"),
    )
    op.create_index("ix_virtual_machines_uuid", "virtual_machines", ["uuid"])
