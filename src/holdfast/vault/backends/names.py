"""Which keys an object may have. Refuses the rest before any backend sees them.

Must not touch a store. Invariant: a key that passes can be a path below a directory, and an
object's name in any object store, without quoting and without climbing out.
"""

from __future__ import annotations

import re

_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")

MAX_KEY_LENGTH = 255
"""Longest key, in characters."""


def checked_key(key: str) -> str:
    """Return the key if an object may have it.

    Raises:
        ValueError: It is empty or too long, climbs, or has other characters than letters, digits,
            ``._-`` and ``/``. That is a defect of the caller, never of stored data.
    """
    if len(key) > MAX_KEY_LENGTH or _KEY.fullmatch(key) is None:
        raise ValueError(f"{key!r} can't be the key of an object")
    return key


def checked_prefix(prefix: str) -> str:
    """Return the part of a prefix before its last slash if keys may begin with it.

    Raises:
        ValueError: It does not end with ``/``, or what is before it can't be a key.
    """
    if not prefix.endswith("/"):
        raise ValueError(f"{prefix!r} is not a prefix: it must end with '/'")
    return checked_key(prefix[:-1])
