"""Which keys an object may have. Refuses the rest before any backend sees them.

Must not touch a store. Invariant: a key that passes can be a path below a directory, and an
object's name in any object store, without quoting and without climbing out.
"""

from __future__ import annotations

import re

_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}"
_KEY = re.compile(rf"(?!tmp(?:/|$)){_PART}(?:/{_PART})*")

MAX_KEY_BYTES = 1024
"""Longest key; a part of one has at most 255 bytes."""


def is_key(key: str) -> bool:
    """Tell whether an object may have this key."""
    return len(key) <= MAX_KEY_BYTES and _KEY.fullmatch(key) is not None


def checked_key(key: str) -> str:
    """Return the key if an object may have it.

    Raises:
        ValueError: It is empty or too long, hides or climbs, begins with ``tmp/``, where files
            lie that are on their way, or has other characters than letters, digits, ``._-`` and
            ``/``. That is a defect of the caller, never of stored data.
    """
    if not is_key(key):
        raise ValueError(f"{key[:80]!r} can't be the key of an object")
    return key


def checked_prefix(prefix: str) -> str:
    """Return a prefix without its last slash if keys may begin with it; "" is for all keys.

    Raises:
        ValueError: It does not end with ``/``, or what is before it can't be a key.
    """
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"{prefix[:80]!r} is not a prefix: it must end with '/'")
    return checked_key(prefix[:-1]) if prefix else ""
