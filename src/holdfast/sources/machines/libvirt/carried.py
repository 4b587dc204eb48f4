"""Disks that are served here, within reach of a QEMU of another host: a socket there leads here.

Must not serve them. Invariants: nobody but QEMU's user, and root, gets at the socket there; of one
machine one connection carries it, whoever had it before; nothing of it stays after the block.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    CommandFailed,
    Forbidden,
    HoldfastError,
    HypervisorError,
    NoPermission,
    Unsupported,
)
from holdfast.sources.machines.libvirt.there import script
from holdfast.sources.machines.overlays import PLACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.sources.machines.libvirt.connection import Libvirt
    from holdfast.sources.machines.libvirt.there import There
    from holdfast.sources.machines.libvirt.tunnel import Tunnel
    from holdfast.sources.machines.overlays import Over

SILENT_S = 12
"""So long a host that hears nothing has QEMU's connection stand: less than the 30 s after which
guests with IDE and SCSI disks give a read up."""

_END_S = 3.0
_ROOT = "name the host as qemu+ssh://root@HOST/system, or run an agent on it"

# $1: the directory of all sockets; $2: the name of this one's; $3: who reads there, if another.
# Who carried it before, and is cut off without knowing that, is ended: QEMU would wait for it.
_PREPARE = """
umask 077; h=$1; d=$1/$2; b=$d.by;
mkdir -m 711 "$h" 2>/dev/null;
if [ -L "$h" ] || [ ! -d "$h" ] || [ ! -O "$h" ]; then echo other; exit 0; fi;
born() { sed "s/.*) //" "/proc/$1/stat" 2>/dev/null | cut -d" " -f20; };
sshd() { case $(cat "/proc/$1/comm" 2>/dev/null) in sshd*) return 0;; esac; return 1; };
if read -r p at <"$b" 2>/dev/null && [ "$p" != $PPID ] && sshd "$p" && [ "$(born "$p")" = "$at" ];
then kill -KILL "$p"; fi;
mkdir -m 700 "$d" 2>/dev/null; rm -f "$d/nbd" || exit 1;
if [ -n "$3" ]; then chown "$3" "$d" || { rmdir "$d"; echo owner; exit 0; }; fi;
if sshd $PPID; then echo $PPID "$(born $PPID)" >"$b"; fi;
echo ready
"""
# Ends who carries it, when nobody was heard of for a while: the network is cut, perhaps, and QEMU
# would wait without an end.
_HEED = """
command -v timeout >/dev/null && command -v head >/dev/null || exit 0;
sshd() { case $(cat "/proc/$1/comm" 2>/dev/null) in sshd*) return 0;; esac; return 1; };
while x=$(timeout "$1" head -n1) && [ "$x" = on ]; do :; done; [ "$x" = end ] || ! sshd $PPID ||
kill -KILL $PPID
"""
_GIVE = 'if [ -n "$2" ]; then chown "$2" "$1" || exit 1; fi; [ -S "$1" ]'
_CLEAR = 'if [ -O "$1" ]; then rm -rf "$1/$2" "$1/$2.by"; rmdir "$1" 2>/dev/null; fi; true'


def there(host: Libvirt, over: Over) -> Over:
    """The same, as it is named where it runs.

    Raises:
        Unsupported: Nothing can be carried to that host.
        HoldfastError: It is not reached.
    """
    found = _look(host)
    # Not the name that it has here: this may be the same machine, by another way.
    label = f"{PurePosixPath(over.socket).parent.name}-far"
    return replace(over, socket=f"{PLACE}-{found.uid}/{label}/nbd")


@contextlib.contextmanager
def carrying(
    host: Libvirt, over: Over, reads_as: Callable[[], int | None]
) -> Iterator[Callable[[], None]]:
    """See `Provider.carrying`; `over` is named as it is here."""
    made = _Carrying(host, over, reads_as)
    try:
        yield made.keep
    finally:
        made.end()


def clear(host: Libvirt, over: Over) -> None:
    """Take away what is left of a socket; `over` is named as it is there.

    Raises:
        HoldfastError: The host is not reached.
    """
    _run(host.tunnel, _CLEAR, *_parts(over))


class _Carrying:
    def __init__(self, host: Libvirt, over: Over, reads_as: Callable[[], int | None]) -> None:
        self._host = host
        self._over = over
        self._reads_as = reads_as
        self._through: Tunnel | None = None
        self._heartbeat: _Heartbeat | None = None

    def keep(self) -> None:
        """Carry it, over a new connection where that was lost."""
        found = _look(self._host)
        tunnel = self._host.tunnel
        if tunnel is self._through:
            return
        over = there(self._host, self._over)
        reader = self._reads_as()
        if reader is None or reader == found.uid:
            owner = ""
        elif found.root:
            owner = str(reader)
        else:
            raise _not_given(found, self._host)
        home, name = _parts(over)
        said = _run(tunnel, _PREPARE, home, name, owner).strip()
        if said == "other":
            raise NoPermission(
                f"'{home}' on '{tunnel.who}' is another user's", "remove it there, and try again"
            )
        if said == "owner":
            raise _not_given(found, self._host)
        if said != "ready":
            raise HypervisorError(
                f"'{tunnel.who}' makes no socket in '{home}': {said or 'silence'}"
            )
        try:
            try:
                tunnel.carry(over.socket, self._over.socket)
            except CommandFailed as error:
                raise Forbidden(
                    f"sshd of '{tunnel.who}' lets no socket there lead to this machine, so QEMU "
                    f"can't reach the image: {error.message}",
                    "set 'AllowStreamLocalForwarding yes' (not 'local') in sshd_config",
                ) from error
            _run(tunnel, _GIVE, over.socket, owner)
            self._forget()
            self._heartbeat = _Heartbeat(tunnel)
        except BaseException:
            self._clear(tunnel, over)
            raise
        self._through = tunnel

    def end(self) -> None:
        """Carry it no more, and take away what it was carried by."""
        if self._through is not None:
            with contextlib.suppress(HoldfastError):
                # Over a new connection, if need be: nobody else would take it away.
                self._clear(self._host.tunnel, there(self._host, self._over))
        self._forget()

    def _forget(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.end()
            self._heartbeat = None

    def _clear(self, tunnel: Tunnel, over: Over) -> None:
        tunnel.leave(over.socket, self._over.socket)
        with contextlib.suppress(HoldfastError):
            _run(tunnel, _CLEAR, *_parts(over))


class _Heartbeat:
    """Tells a host again and again that somebody is here, in a thread of its own."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._ended = threading.Event()
        self._process = tunnel.begin(script(_HEED, [str(SILENT_S)]), subprocess.DEVNULL)
        self._thread = threading.Thread(target=self._beat, name="carried", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Tell no more, and that this is meant so."""
        self._ended.set()
        self._thread.join(_END_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _beat(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(OSError), stdin:
            while not self._ended.wait(SILENT_S / 5):
                stdin.write(b"on\n")
                stdin.flush()
            stdin.write(b"end\n")


def _look(host: Libvirt) -> There:
    found = host.there()
    if found is None:
        raise Unsupported(
            f"'{host.url}' is not reached by ssh, which would carry the image there", _ROOT
        )
    if found.uid is None:
        raise Unsupported(
            f"'{host.tunnel.who}' gives no shell, by which a socket for the image would be made",
            _ROOT,
        )
    return found


def _not_given(found: There, host: Libvirt) -> NoPermission:
    return NoPermission(
        f"user '{found.user}' of '{host.address.host}' may not give QEMU's user there the socket "
        "by which it reaches the image",
        _ROOT,
    )


def _parts(over: Over) -> tuple[str, str]:
    directory = PurePosixPath(over.socket).parent
    return str(directory.parent), directory.name


def _run(tunnel: Tunnel, text: str, *arguments: str) -> str:
    try:
        return tunnel.run(script(text, arguments)).decode(errors="replace")
    except CommandFailed as error:
        raise NoPermission(
            f"a socket for the image can't be made on '{tunnel.who}': {error.message}",
            "see that /var/tmp can be written to there",
        ) from error
