"""A real PostgreSQL server for a test session, from Debian's package, and databases in it.

The server keeps its data in a temporary directory, in memory unless somebody wants to know how long
a disk takes, and listens on a socket there and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.kit import quick_disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OPTIONS = {
    "listen_addresses": "''",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "50",
    "shared_buffers": "32MB",
}

_IN_MEMORY = {"min_wal_size": "32MB", "max_wal_size": "128MB"}
_ROOM_BYTES = 2 << 30
"""What has to be free in memory for a server; a container may have very little there."""


def programs() -> Path | None:
    """Where the newest installed server's programs are."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: float(one.parts[-3])
    )
    return found[-1].parent if found else None


class Server:
    """One running server. Its databases are made from a template, so that each is cheap."""

    def __init__(
        self, place: Path, binaries: Path, prefix: list[str], options: Mapping[str, str]
    ) -> None:
        self.place = place
        self._binaries = binaries
        self._prefix = prefix
        self._options = dict(options)
        self._made = 0

    def run(self, program: str, *arguments: str) -> None:
        command = [*self._prefix, str(self._binaries / program), *arguments]
        done = subprocess.run(
            command, cwd=self.place, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        # The server's own output must not keep our pipe open.
        settings = " ".join(f"-c {name}={value}" for name, value in self._options.items())
        self.run(
            "pg_ctl", "start", "--wait", "-D", str(self.place / "data"),
            "-l", str(self.place / "log"), "-o", f"-k {self.place} {settings}",
        )  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "stop", "--wait", "-D", str(self.place / "data"), "-m", mode)

    def url(self, name: str) -> str:
        return f"postgresql://holdfast@/{name}?host={quote(str(self.place), safe='')}"

    def database(self, template: str = "template0") -> tuple[str, str]:
        """Make a database; its name and its URL."""
        self._made += 1
        name = f"site_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name, self.url(name)

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement as the server's administrator."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)


def _new_place(on_disk: bool) -> tuple[Path, dict[str, str]]:
    """A new directory, and how a server is to be that has its data there."""
    if not on_disk:
        place = quick_disk.make()
        if shutil.disk_usage(place).free >= _ROOM_BYTES:
            return place, _IN_MEMORY
        place.rmdir()
    return Path(tempfile.mkdtemp(prefix="holdfast-postgres-")), {}


@contextlib.contextmanager
def server(
    binaries: Path, options: Mapping[str, str] | None = None, *, on_disk: bool = False
) -> Iterator[Server]:
    """Start a server, with some options of its own; it is gone when the block has ended.

    A database is 600 files. To make one of a template takes a third of the time in memory.
    """
    place, own = _new_place(on_disk)
    prefix: list[str] = []
    if os.geteuid() == 0:
        # It refuses to run as root.
        shutil.chown(place, "postgres", "postgres")
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    place.chmod(0o755)
    running = Server(place, binaries, prefix, _OPTIONS | own | dict(options or {}))
    try:
        running.run(
            "initdb", "-D", str(place / "data"), "--username=holdfast", "--auth=trust",
            "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        running.start()
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(place, ignore_errors=True)
