import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "holds",
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("placed_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("image_id", "reason", name="pk_holds"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_holds_image_id"),
    )
    op.create_table(
        "locks",
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("until_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("image_id", name="pk_locks"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_locks_image_id"),
    )
    op.create_table(
        "clock_marks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("wall_ns", sa.BigInteger(), nullable=False),
        sa.Column("since_boot_ns", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clock_marks"),
    )
