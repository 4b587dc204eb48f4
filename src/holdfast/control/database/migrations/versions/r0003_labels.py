import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("policy", "schedule", "backup_kind", "job"):
        op.add_column("images", sa.Column(name, sa.Text()))
    op.create_index("ix_images_policy", "images", ["policy"])
