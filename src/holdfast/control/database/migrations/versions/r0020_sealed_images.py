"""With which client key an image is sealed, and whether its names are."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("client_key", sa.Text(), nullable=True))
    op.add_column(
        "images",
        sa.Column("sealed_names", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
