from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_jobs_at_ns", "jobs")
    op.create_index("ix_jobs_at_ns", "jobs", ["at_ns", "id", "state", "outcome", "children"])
