import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "authority",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("certificate", sa.Text(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_authority"),
    )
    op.create_table(
        "enrollment_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("replaces", sa.Integer(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=False),
        sa.Column("used_ns", sa.BigInteger()),
        sa.Column("used_by", sa.Text()),
        sa.Column("used_key", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_enrollment_tokens"),
        sa.UniqueConstraint("secret_hash", name="uq_enrollment_tokens_secret_hash"),
    )
    op.create_index("ix_enrollment_tokens_expires_ns", "enrollment_tokens", ["expires_ns"])
    op.create_index("ix_enrollment_tokens_name", "enrollment_tokens", ["name"])
    op.create_table(
        "machines",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("folded", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("enrollment", sa.Integer(), nullable=False),
        sa.Column("enrolled_ns", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_ns", sa.BigInteger()),
        sa.Column("revoked_ns", sa.BigInteger()),
        sa.Column("addresses", sa.Text(), nullable=False),
        sa.Column("drives", sa.Text(), nullable=False),
        sa.Column("software", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_machines"),
        sa.UniqueConstraint("folded", name="uq_machines_folded"),
    )
    op.create_table(
        "machine_certificates",
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("issued_ns", sa.BigInteger(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ns", sa.BigInteger()),
        sa.PrimaryKeyConstraint("serial", name="pk_machine_certificates"),
        sa.ForeignKeyConstraint(
            ["machine"],
            ["machines.name"],
            name="fk_machine_certificates_machine",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_machine_certificates_machine_issued_ns",
        "machine_certificates",
        ["machine", "issued_ns"],
    )
    op.create_index("ix_machine_certificates_expires_ns", "machine_certificates", ["expires_ns"])
