"""The socket on which the site of a home is reached on its own machine.

Must not know what is spoken over it. Invariants: it is for its owner and root alone; one that
nobody listens on is as if it were not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import TYPE_CHECKING

from holdfast.base.errors import Busy, storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "run/api.sock"
"""Where it is in a home."""

_LONGEST = 100
_BACKLOG = 128
_PROBE_S = 5.0


@contextlib.contextmanager
def within_reach(path: Path) -> Iterator[str]:
    """A name of a socket's path that is short enough for the kernel while the block lasts."""
    whole = os.fspath(path)
    if len(os.fsencode(whole)) <= _LONGEST:
        yield whole
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """The socket, and the directory it is in, while the block lasts.

    Raises:
        Busy: Somebody listens there already.
        StorageError: It can't be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Two that begin at once would each take the other's socket for one of the dead.
            lock = stack.enter_context(path.with_suffix(".lock").open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(
                    f"a site is served at {path} already", "stop the other one first"
                ) from error
            path.unlink(missing_ok=True)
            end = stack.enter_context(_bound(path))
        except OSError as error:
            words = error.strerror or str(error)
            raise storage_error(error)(f"can't make the socket {path}: {words}") from error
        stack.callback(path.unlink, missing_ok=True)
        yield end


def answers(path: Path) -> bool:
    """Whether somebody listens there.

    Raises:
        OSError: This user may not know.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            with within_reach(path) as name:
                probe.connect(name)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except (TimeoutError, BlockingIOError):
            # It listens, and has more to do than it can.
            return True
    return True


def _bound(path: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with within_reach(path) as name:
            end.bind(name)
            # Nobody can connect before it listens.
            os.chmod(name, 0o600)
        end.listen(_BACKLOG)
    except BaseException:
        end.close()
        raise
    return end


def require_unserved(home: Path) -> None:
    """Make sure that nobody serves the site of a home, whose damaged catalog is to be set aside.

    Raises:
        Busy: Somebody does, and would go on writing to what is set aside.
    """
    place = home / NAME
    if answers(place):
        raise Busy(
            f"the catalog is damaged, and open to whoever serves the site at {place}",
            "stop that process, rebuild the catalog, then serve the site again",
        )
