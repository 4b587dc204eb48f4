"""Connect to a UNIX socket of a machine, and say truly why that is not possible.

Must not speak on it.
"""

from __future__ import annotations

import socket

from holdfast.base.errors import Busy, NoPermission, Unreachable

CONNECT_TIMEOUT_S = 5.0


def connect(path: str, what: str) -> socket.socket:
    """Connect to a UNIX socket of a machine.

    Raises:
        Unreachable: It is not there, or nobody listens.
        NoPermission: This user may not.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(CONNECT_TIMEOUT_S)
        made.connect(path)
    except OSError as error:
        made.close()
        if isinstance(error, PermissionError):
            raise NoPermission(
                f"no permission to use the {what} socket '{path}'",
                "run the proxy as the user that QEMU runs as, or as one who may write the socket",
            ) from error
        if isinstance(error, FileNotFoundError):
            raise Unreachable(
                f"there is no {what} socket '{path}'", "start the machine, or correct the path"
            ) from error
        if isinstance(error, ConnectionRefusedError):
            raise Unreachable(
                f"nobody listens at the {what} socket '{path}'", "start the machine"
            ) from error
        if isinstance(error, TimeoutError | BlockingIOError):
            raise Busy(
                f"the {what} socket '{path}' takes no connection: another program holds it",
                f"give backups a {what} socket of their own",
            ) from error
        raise Unreachable(f"the {what} socket '{path}': {error.strerror or error}") from error
    return made
