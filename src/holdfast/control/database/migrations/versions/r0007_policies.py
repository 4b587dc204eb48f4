import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("storage_unit", sa.Text(), nullable=False),
        sa.Column("client_query", sa.Text()),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("changed_ns", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_policies"),
    )
    op.create_index("ix_policies_storage_unit_name", "policies", ["storage_unit", "name"])
    op.create_index("ix_policies_client_query", "policies", ["client_query"])
    op.create_table(
        "policy_clients",
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("policy", "client", name="pk_policy_clients"),
        sa.ForeignKeyConstraint(
            ["policy"],
            ["policies.name"],
            name="fk_policy_clients_policy",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_policy_clients_client_policy", "policy_clients", ["client", "policy"])
    op.create_table(
        "policy_revisions",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_policy_revisions"),
        sa.UniqueConstraint("policy", "revision", name="uq_policy_revisions_policy_revision"),
    )
