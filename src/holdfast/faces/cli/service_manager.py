"""What a process says to the service manager that started it.

Must not fail where there is none.
"""

from __future__ import annotations

import contextlib
import os
import socket


def tell_service_manager(state: str) -> None:
    """Say how far we are, as sd_notify(3) does, to whoever started us."""
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.sendto(state.encode(), f"\0{place[1:]}" if place.startswith("@") else place)
