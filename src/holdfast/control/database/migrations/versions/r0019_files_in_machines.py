"""Indexes of the files inside of machines' images."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("index_of", sa.Text()))
    op.create_index("ix_images_index_of", "images", ["index_of"])
    op.create_table(
        "indexings",
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text()),
        sa.PrimaryKeyConstraint("image_id", name="pk_indexings"),
    )
