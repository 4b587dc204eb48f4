"""A real sshd where a test's libvirtd is: with its files, which nobody else has at those paths."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

if TYPE_CHECKING:
    from tests.kit.libvirtd import Libvirtd

HOST = "127.0.0.1"


def why_no_sshd() -> str | None:
    if shutil.which("ssh") is None or not Path("/usr/sbin/sshd").exists():
        return "needs openssh-client and openssh-server"
    if os.geteuid() != 0:
        return "needs root, to let in whoever has the key"
    return None


_reason = why_no_sshd()
needs_sshd = pytest.mark.skipif(_reason is not None, reason=str(_reason))


class Sshd:
    """One that lets root in, and whom it is told to, with a key of its own."""

    def __init__(self, daemon: Libvirtd, *settings: str) -> None:
        self.daemon = daemon
        self.directory = daemon.directory / "ssh"
        self.directory.mkdir(mode=0o755, exist_ok=True)
        self.key = self.make_key("key")
        host = self.make_key("host")
        (self.directory / "authorized").write_text(self.key.with_suffix(".pub").read_text())
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        public = host.with_suffix(".pub").read_text()
        self.known_hosts = self.directory / "known_hosts"
        self.known_hosts.write_text(f"[{HOST}]:{self.port} {public}")
        given = [f"Port {self.port}", f"ListenAddress {HOST}", f"HostKey {host}", "PidFile none"]
        given += [f"AuthorizedKeysFile {self.directory}/authorized", "StrictModes no", "UsePAM no"]
        given += ["PermitRootLogin yes", "PasswordAuthentication no", *settings]
        (self.directory / "config").write_text("\n".join(given) + "\n")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.within = ["nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt"]
        self.temporary.mkdir(mode=0o777, exist_ok=True)
        self.temporary.chmod(0o1777)
        mounting = ["mount", "--bind", str(self.temporary), "/var/tmp"]
        subprocess.run([*self.within, *mounting], check=True)
        words = [*self.within, "/usr/sbin/sshd", "-D", "-e"]
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*words, "-f", str(self.directory / "config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait()

    @property
    def temporary(self) -> Path:
        """What that host has at ``/var/tmp``."""
        return self.daemon.directory / "vartmp"

    def cut(self) -> None:
        """End all connections, as a network does that is gone and back."""
        for one in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)

    def sessions(self) -> list[int]:
        """The processes that have a connection each."""
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in found]

    def make_key(self, name: str) -> Path:
        path = self.directory / name
        path.unlink(missing_ok=True)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(words, check=True)
        return path

    def url(self, user: str = "root", **options: str) -> str:
        given = {"keyfile": str(self.key), "known_hosts": str(self.known_hosts)} | options
        query = urlencode({name: value for name, value in given.items() if value})
        return f"qemu+ssh://{user}@{HOST}:{self.port}/system?{query}"

    def end(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def _wait(self) -> None:
        until = time.monotonic() + 30
        while True:
            assert self.process.poll() is None, (self.directory / "log").read_text()
            try:
                socket.create_connection((HOST, self.port)).close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < until
                time.sleep(0.02)
