"""One connection to another host by the system's OpenSSH, with sockets of that host in it.

Must not know what is said over the sockets. Invariants: the host's key is checked unless the URL
says otherwise, and nobody is asked for anything; the connection does not outlive the process that
made it; its sockets here are reached by this user alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
import weakref
from typing import IO, TYPE_CHECKING

from holdfast.base.errors import (
    CommandFailed,
    Forbidden,
    HoldfastError,
    Invalid,
    NoPermission,
    NotAuthenticated,
    TooSlow,
    Unreachable,
    Unsupported,
)
from holdfast.sources import places, supervised

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast.sources.machines.libvirt.address import LibvirtAddress

PREFIX = "holdfast-ssh-"
CONNECT_S = 30
_LOG_BYTES = 16 * 1024
_SILENT_S = 10


class Tunnel:
    """A connection to one host. Thread-safe."""

    def __init__(self, address: LibvirtAddress) -> None:
        """Connect.

        Raises:
            HoldfastError: The host does not answer, is not the one that is known, or does not let
                this user in; the true cause.
        """
        self._address = address
        self._lock = threading.Lock()
        self._forwarded: dict[str, str] = {}
        program = address.options.get("command", "ssh")
        if shutil.which(program) is None:
            raise Unsupported(
                f"this machine has no {program}, by which '{address.host}' is reached",
                "install OpenSSH's client: Debian's package openssh-client",
            )
        self._program = program
        self._open = contextlib.ExitStack()
        try:
            self._place: Path = self._open.enter_context(places.private_directory(PREFIX))
            self._connect()
        except BaseException:
            self._open.close()
            raise
        weakref.finalize(self, self._open.close)

    @property
    def who(self) -> str:
        """Who asks, and where, as messages name it."""
        user = self._address.user
        return f"{user}@{self._address.host}" if user else self._address.host

    def lives(self) -> bool:
        """Whether the connection is there."""
        return self._process.poll() is None and (self._place / "control").exists()

    def close(self) -> None:
        """Close it, and all that goes through it."""
        self._open.close()

    def forward(self, there: str) -> str:
        """Have what goes to a socket here go to one there; path or ``host:port`` of that.

        Returns:
            The path of the socket here. Whether anybody listens there is not known yet.

        Raises:
            HoldfastError: The connection is lost.
        """
        with self._lock:
            if there not in self._forwarded:
                here = str(self._place / f"s{len(self._forwarded)}")
                words = self._words("-O", "forward", "-L", f"{_escaped(here)}:{_escaped(there)}")
                self._run(words, b"", f"a socket of '{self.who}' can't be forwarded")
                self._forwarded[there] = here
            return self._forwarded[there]

    def cancel(self, there: str) -> None:
        """End what `forward` began."""
        with self._lock:
            # The name is not used again: another forward gets one of its own.
            here = self._forwarded.get(there)
            if here is None:
                return
            self._forwarded[there + "\0" + here] = self._forwarded.pop(there)
            words = self._words("-O", "cancel", "-L", f"{_escaped(here)}:{_escaped(there)}")
            with contextlib.suppress(HoldfastError):
                self._run(words, b"", "a socket can't be closed")
            with contextlib.suppress(OSError):
                os.unlink(here)

    def carry(self, there: str, here: str) -> None:
        """Have what goes to a socket there go to one here, until `leave`.

        Args:
            there: Path of it, where nothing is yet.
            here: Path of the other.

        Raises:
            CommandFailed: sshd does not do it.
            HoldfastError: The connection is lost.
        """
        words = self._words("-O", "forward", "-R", f"{_escaped(there)}:{_escaped(here)}")
        self._run(words, b"", f"'{self.who}' does not forward the socket '{there}'")

    def leave(self, there: str, here: str) -> None:
        """End what `carry` began, if the connection is there."""
        words = self._words("-O", "cancel", "-R", f"{_escaped(there)}:{_escaped(here)}")
        with contextlib.suppress(HoldfastError):
            self._run(words, b"", "a socket can't be closed")

    def run(
        self, command: Sequence[str] | str, data: bytes = b"", *, timeout_s: float = 120
    ) -> bytes:
        """Run a command there.

        Raises:
            CommandFailed: It ended with another status than 0; what it said.
            HoldfastError: The connection is lost.
        """
        text = command if isinstance(command, str) else f"LC_ALL=C {shlex.join(command)}"
        what = f"a command on '{self.who}' failed"
        return self._run(self._words("-T", "--", self._address.host, text), data, what, timeout_s)

    def begin(self, script: str, stderr: IO[bytes] | int) -> subprocess.Popen[bytes]:
        """Begin a script there; it is to end when its standard input does."""
        return subprocess.Popen(
            self._words("-T", "--", self._address.host, script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=_environment(),
            start_new_session=True,
        )

    def said(self) -> str:
        """What ssh complained about so far."""
        with contextlib.suppress(OSError), (self._place / "log").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            return file.read().decode(errors="replace")
        return ""

    def _connect(self) -> None:
        given = self._address
        if not given.host or given.host.startswith("-"):
            raise Invalid(f"'{given.host}' can't be the name of a host")
        words = [self._program, "-N", "-T", "-a", "-x", "-o", "ControlMaster=yes"]
        words += ["-o", f"ControlPath={self._control}", "-o", "ControlPersist=no"]
        words += ["-o", f"ConnectTimeout={CONNECT_S}", "-o", "ServerAliveCountMax=3"]
        words += ["-o", f"ServerAliveInterval={_SILENT_S}", "-o", "StreamLocalBindMask=0177"]
        words += ["-o", "BatchMode=yes", "-o", "PermitLocalCommand=no", "-o", "LogLevel=INFO"]
        words += ["-o", "ForkAfterAuthentication=no"]
        verify = "no" if given.options.get("no_verify", "0") not in ("", "0") else "yes"
        words += ["-o", f"StrictHostKeyChecking={verify}"]
        if known := given.options.get("known_hosts"):
            words += ["-o", f"UserKnownHostsFile={known}"]
        if key := given.options.get("keyfile"):
            if not os.access(key, os.R_OK):
                raise NoPermission(
                    f"the key '{key}' can't be read", "name a file on the proxy, readable to it"
                )
            words += ["-i", key, "-o", "IdentitiesOnly=yes"]
        words += ["-p", str(given.port)] if given.port else []
        words += ["-l", given.user] if given.user else []
        with (self._place / "log").open("wb") as log:
            self._process = supervised.begin([*words, "--", given.host], _environment(), stderr=log)
        self._open.callback(supervised.end, self._process)
        until = time.monotonic() + CONNECT_S + 5
        while not (self._place / "control").exists():
            if self._process.poll() is not None:
                raise why(self.said(), self.who)
            if time.monotonic() > until:
                raise TooSlow(f"'{self.who}' did not let us in within {CONNECT_S} seconds")
            time.sleep(0.01)

    @property
    def _control(self) -> str:
        return str(self._place / "control").replace("%", "%%")

    def _words(self, *words: str) -> list[str]:
        common = [self._program, "-o", f"ControlPath={self._control}", "-o", "ControlMaster=no"]
        common += ["-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        # With the master gone it would connect anew, by other words than those of the URL.
        common += ["-o", "ProxyCommand=false"]
        return [*common, *words, *([self._address.host] if "-O" in words else [])]

    def _run(self, words: list[str], data: bytes, what: str, timeout_s: float = 30) -> bytes:
        try:
            done = subprocess.run(
                words,
                input=data,
                capture_output=True,
                env=_environment(),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TooSlow(f"{what}: no answer within {timeout_s:g} seconds") from error
        if done.returncode:
            if not self.lives():
                raise why(self.said(), self.who)
            said = " ".join(done.stderr[-_LOG_BYTES:].decode(errors="replace").split())
            raise CommandFailed(f"{what}: {said or f'status {done.returncode}'}")
        return done.stdout


def why(said: str, who: str) -> HoldfastError:
    """The error for what ssh said when it ended."""
    lines = [line.strip() for line in said.splitlines()]
    text = " ".join(one for one in lines if one and not set(one) <= {"@"})
    text = "".join(one if one.isprintable() else " " for one in text)
    for pattern, kind, message, hint in _CAUSES:
        if re.search(pattern, text):
            return kind(f"{message.format(who=who)}: {_short(lines, pattern)}", hint)
    return Unreachable(
        f"the connection to '{who}' by ssh ended: {text or 'nothing was said'}",
        "try it by hand, as the user that the proxy runs as: ssh HOST",
    )


def _short(lines: list[str], pattern: str) -> str:
    """The one line that tells it."""
    found = [one for one in lines if re.search(pattern, one)]
    return found[-1] if found else lines[-1] if lines else ""


_CAUSES: tuple[tuple[str, type[HoldfastError], str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|[Hh]ost key for \S+ has changed",
        NotAuthenticated,
        "'{who}' has another key than the one that is known, and may be another host",
        "find out why; if its key was changed, put the new one in the proxy's known_hosts",
    ),
    (
        r"Host key verification failed|No \S+ host key is known",
        NotAuthenticated,
        "the key of the host '{who}' is not known to the proxy",
        "compare its fingerprint, and put it in known_hosts of the user that the proxy runs as",
    ),
    (
        r"UNPROTECTED PRIVATE KEY|bad permissions",
        NoPermission,
        "the key for '{who}' can be read by others, so ssh does not use it",
        "chmod 600 the key",
    ),
    (
        r"Permission denied \(|Too many authentication failures|No more authentication methods",
        NotAuthenticated,
        "'{who}' does not let the proxy in",
        "let a key of the proxy in there (authorized_keys); the URL may name it: ?keyfile=FILE",
    ),
    (
        r"Could not resolve hostname|Name or service not known",
        Unreachable,
        "there is no host '{who}'",
        "correct its name, or see to the name service of the proxy",
    ),
    (
        r"Connection refused|No route to host|timed out|Network is unreachable|Connection closed",
        Unreachable,
        "'{who}' does not answer by ssh",
        "see that sshd runs there, on the port that the URL names, and the network",
    ),
    (
        r"[Bb]ad configuration|unknown option|command-line: line",
        Invalid,
        "ssh does not take what the URL says for '{who}'",
        "correct the URL",
    ),
)

_REFUSED = "open failed"
_PROHIBITED = "administratively prohibited"


def not_forwarded(tunnel: Tunnel, what: str, *, closed: bool) -> HoldfastError | None:
    """The error for a forwarded socket at which nobody answered, where sshd is what refuses it.

    Args:
        tunnel: Through which it was forwarded.
        what: Whose socket it is.
        closed: Whether it may be that this user is not let in by whoever listens; sshd says the
            same of both.
    """
    until = time.monotonic() + 1
    while _REFUSED not in tunnel.said() and time.monotonic() < until:
        time.sleep(0.02)  # the socket is closed before the reason is written
    said = tunnel.said()
    if _PROHIBITED not in said and (closed or _REFUSED not in said):
        return None
    return Forbidden(
        f"sshd of '{tunnel.who}' does not forward sockets, so {what} is out of reach",
        "set 'AllowStreamLocalForwarding yes' (and 'AllowTcpForwarding yes') in sshd_config",
    )


def _escaped(place: str) -> str:
    """A path or address as ``-L`` takes it."""
    if not place.startswith("/"):
        return place
    return place.replace("\\", "\\\\").replace(":", "\\:").replace("%", "%%").replace("$", "\\$")


def _environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}
