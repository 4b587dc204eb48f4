"""What a process says to the service manager that started it, and logs.

Must not fail where there is none.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

from holdfast.faces.cli.journal import (
    DEBUG,
    ERROR,
    INFO,
    WARNING,
    talks_to_journal,
    with_priority,
)

if TYPE_CHECKING:
    from types import TracebackType


def tell_service_manager(state: str) -> None:
    """Say how far we are, as sd_notify(3) does, to whoever started us."""
    place = _notify_socket()
    if not place:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.sendto(state.encode(), f"\0{place[1:]}" if place.startswith("@") else place)


@functools.cache
def _notify_socket() -> str | None:
    # It is ours: what we start has nothing to say there, and a policy's command might.
    return os.environ.pop("NOTIFY_SOCKET", None)


class JournalFormatter(logging.Formatter):
    """Writes records for the journal, which has the time and the level itself."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        priority = (
            ERROR
            if record.levelno >= logging.ERROR
            else WARNING
            if record.levelno >= logging.WARNING
            else INFO
            if record.levelno >= logging.INFO
            else DEBUG
        )
        return with_priority(super().format(record), priority)


def log_to_stderr() -> None:
    """Have what the program logs reach stderr, and what a thread dies of as well."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JournalFormatter("%(message)s")
        if talks_to_journal()
        else logging.Formatter("%(levelname)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    threading.excepthook = _thread_died


def _thread_died(died: threading.ExceptHookArgs) -> None:
    value, trace = died.exc_value, died.exc_traceback
    if value is None or isinstance(value, SystemExit):
        return
    told: tuple[type[BaseException], BaseException, TracebackType | None] = (
        died.exc_type,
        value,
        trace,
    )
    name = "?" if died.thread is None else died.thread.name
    logging.getLogger("holdfast").error("thread '%s' died of a defect", name, exc_info=told)
