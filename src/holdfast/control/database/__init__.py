"""The control database: what the master server knows, on SQLite or PostgreSQL.

The front door; nothing outside imports the modules behind it, but for `metadata` and `upsert`,
which the packages that have tables use. Must not know what the rows mean, nor load SQLAlchemy
before someone asks for what needs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.control.database.database import Database
    from holdfast.control.database.leadership import Leadership
    from holdfast.control.database.question import Question

__all__ = ["Database", "Leadership", "Question"]


def __getattr__(name: str) -> Any:
    if name == "Database":
        from holdfast.control.database.database import Database

        return Database
    if name == "Leadership":
        from holdfast.control.database.leadership import Leadership

        return Leadership
    if name == "Question":
        from holdfast.control.database.question import Question

        return Question
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
