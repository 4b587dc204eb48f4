from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_images_policy", "images")
    for columns in (
        ["started_ns", "id"],
        ["source_id", "started_ns", "id"],
        ["policy", "started_ns", "id"],
    ):
        op.create_index(f"ix_images_{'_'.join(columns)}", "images", columns)
