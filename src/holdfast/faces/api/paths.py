"""Paths and names of files as the API has them: text, and their bytes where those are not UTF-8.

Must not look at what is there. Invariant: whatever bytes a name has, it goes out so that it can
come back in unchanged.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Annotated

from fastapi import Query
from pydantic import Field

from holdfast.base.errors import PathMissing

BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

ABSOLUTE_BASE64 = (
    r"^L[w-z0-9+/](==|[A-Za-z0-9+/]=|[A-Za-z0-9+/]{2}([A-Za-z0-9+/]{4})*"
    r"([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)$"
)
"""Base64 of what begins with ``/``."""

EncodedPath = Annotated[str, Field(max_length=8192, pattern=ABSOLUTE_BASE64, examples=["L3Nydi//"])]
"""An absolute path in a body, as base64 of its bytes."""

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


def decoded(path: str) -> bytes:
    """The bytes of an `EncodedPath`.

    Raises:
        PathMissing: It has a NUL in it, as no path has.
    """
    given = b64decode(path)
    if b"\0" in given:
        raise PathMissing(f"there is nothing at '{text_of(given)}'", "a path has no NUL in it")
    return given


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
