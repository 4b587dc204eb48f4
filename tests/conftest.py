"""Fixtures that tests of several kinds share."""

from tests.kit.databases import (
    database,
    database_place,
    migrated_template,
    postgres_server,
    postgres_url,
)

__all__ = ["database", "database_place", "migrated_template", "postgres_server", "postgres_url"]
