"""Whether virtual machines came up when they were booted from their images."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "boot_checks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("took_ms", sa.BigInteger(), nullable=False),
        sa.Column("met", sa.Text(), nullable=False),
        sa.Column("missed", sa.Text(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("screenshot", sa.LargeBinary()),
        sa.ForeignKeyConstraint(
            ["image"], ["images.id"], name="fk_boot_checks_image_images", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_boot_checks"),
    )
    op.create_index("ix_boot_checks_image", "boot_checks", ["image"])
