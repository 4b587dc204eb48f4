from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_audit_object_seq", "audit", ["object", "seq"])
    op.create_index("ix_audit_outcome_seq", "audit", ["outcome", "seq"])
    op.create_index("ix_audit_at_ns_seq", "audit", ["at_ns", "seq"])
