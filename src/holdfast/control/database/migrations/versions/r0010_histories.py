import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedule_histories",
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("since_ns", sa.BigInteger(), nullable=False),
        sa.Column("handled_ns", sa.BigInteger()),
        sa.Column("last_start_ns", sa.BigInteger()),
        sa.PrimaryKeyConstraint("policy", "schedule", "source", name="pk_schedule_histories"),
    )
