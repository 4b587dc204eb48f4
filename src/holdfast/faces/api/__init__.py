"""The API of a site: ``/api/v1`` over HTTP, and the same inside a process.

Pydantic and FastAPI are used here and nowhere else. A module for each noun has a ``router``; `app`
joins them. Must not decide anything that a book of the control floor could decide.
"""
