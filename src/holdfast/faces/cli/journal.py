"""How lines on stderr reach systemd's journal: with how grave they are.

Must not write any. Invariant: anywhere else lines are as a person reads them.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ERROR: Final = 3
WARNING: Final = 4
INFO: Final = 6
DEBUG: Final = 7
"""Priorities of syslog(3); sd-daemon(3) tells how a line on stderr says its own."""


def is_journal(environ: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether what is written to a descriptor goes to systemd's journal; see systemd.exec(5)."""
    named = environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


@functools.cache
def talks_to_journal() -> bool:
    """Whether stderr of this process does."""
    return is_journal(os.environ)


def with_priority(text: str, priority: int) -> str:
    """A text of which the journal knows how grave it is: in each line of it."""
    return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))
