"""Which schema of the control database this program is written for.

Must not load anything: who only looks whether a database is of this schema asks here.
"""

HEAD = "0023"
"""The newest revision in ``migrations/versions``; a test holds it against Alembic's opinion."""
