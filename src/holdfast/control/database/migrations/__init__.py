"""Alembic's revisions of ``catalog.db``, shipped inside the package and run at opening."""
