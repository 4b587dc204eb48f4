"""Paths and names of files as the API has them: text, and their bytes where those are not UTF-8.

Must not look at what is there. Invariant: whatever bytes a name has, it goes out so that it can
come back in unchanged.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Annotated

from fastapi import Query

BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

PathText = Annotated[
    str, Query(pattern=r"^[^\x00]+$", max_length=4096, description="Absolute.", examples=["/etc"])
]
PathBytes = Annotated[
    str | None,
    Query(
        pattern=BASE64,
        max_length=8192,
        description="The path as base64 of its bytes, where it is not UTF-8; instead of `path`.",
    ),
]


def path_of(path: str, path_base64: str | None) -> bytes:
    """The bytes of a path that came in."""
    if path_base64 is None:
        return path.encode()
    return b64decode(path_base64)


def text_of(path: bytes) -> str:
    r"""A path or name to be read: bytes that are not UTF-8 are written as ``\xNN``."""
    return path.decode("utf-8", "backslashreplace")


def base64_of(path: bytes) -> str | None:
    """Its bytes as base64; None where the text says it all."""
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return b64encode(path).decode("ascii")
    return None
