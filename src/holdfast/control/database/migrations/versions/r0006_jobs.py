import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, _TEXT, nullable=False, server_default="")


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _NUMBER, sa.Identity(), nullable=False),
        sa.Column("parent_id", _NUMBER),
        sa.Column("restart_of", _NUMBER),
        _number("children"),
        *map(_text, ("kind", "policy", "schedule", "client", "source", "backup_kind")),
        _text("storage_unit"),
        _number("priority"),
        _text("state"),
        sa.Column("suspended", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        *map(_text, ("asked", "outcome")),
        *map(_number, ("due_ns", "queued_ns", "at_ns", "not_before_ns", "started_ns")),
        *map(_number, ("ended_ns", "duration_ns", "attempt", "fence", "lease_until_ns")),
        _text("image_id"),
        *map(_number, ("files", "size_bytes", "online_bytes", "new_bytes")),
        *map(_number, ("transmitted_bytes", "findings")),
        *map(_text, ("more_counters", "waits_on", "waits_for")),
        *map(_text, ("error_code", "error_message", "error_hint")),
        *map(_number, ("events", "events_left_out")),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.ForeignKeyConstraint(["parent_id"], ["jobs.id"], name="fk_jobs_parent_id"),
        sa.ForeignKeyConstraint(["restart_of"], ["jobs.id"], name="fk_jobs_restart_of"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_parent_id", "jobs", ["parent_id"])
    op.create_index("ix_jobs_restart_of", "jobs", ["restart_of"])
    for name in ("state", "outcome", "policy", "client", "source"):
        op.create_index(f"ix_jobs_{name}", "jobs", [name, "id"])
    op.create_index("ix_jobs_at_ns", "jobs", ["at_ns", "state", "outcome", "children"])
    op.create_index(
        "uq_jobs_occurrence",
        "jobs",
        ["policy", "schedule", "client", "source", "due_ns"],
        unique=True,
        sqlite_where=sa.text("due_ns > 0"),
        postgresql_where=sa.text("due_ns > 0"),
    )
    op.create_table(
        "job_work",
        sa.Column("job_id", _NUMBER, nullable=False, autoincrement=False),
        sa.Column("work", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_work"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_work_job_id"),
    )
    op.create_table(
        "job_events",
        sa.Column("job_id", _NUMBER, nullable=False, autoincrement=False),
        sa.Column("seq", _NUMBER, nullable=False, autoincrement=False),
        _number("at_ns"),
        *map(_text, ("severity", "cause", "message")),
        sa.Column("matters", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "seq", name="pk_job_events"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_events_job_id"),
        sqlite_with_rowid=False,
    )
