"""The control database: what the master server knows, on SQLite or PostgreSQL.

The front door; nothing outside imports the modules behind it, but for `metadata` and `upsert`,
which the packages that have tables use. Must not know what the rows mean.
"""

from holdfast.control.database.database import Database
from holdfast.control.database.leadership import Leadership

__all__ = ["Database", "Leadership"]
