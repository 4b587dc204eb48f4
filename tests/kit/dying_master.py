"""A process that serves a site again and again, and kills itself before a step that is named.

``python -m tests.kit.dying_master`` reads JSON strings, a line each, and forks a process for each
that does what ``holdfast serve`` does. A step is whatever is to last: a commit of the control
database, named by who commits; an object that is put into the pool or deleted there, by what it
is; a file of the home that is renamed or removed, by who does that. They are found as they come,
so that none that the product begins to make can be forgotten here. Before the one of the name
that was given the process is killed; an empty name is none, and of ``null`` no steps are found:
then the pool is the engine's own, which tells nobody of its steps.

What is printed, a JSON object a line: ``{"step": …}`` for each step that was not met before in
this round, and at last ``{"ended": status}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.default import DefaultDialect

from holdfast.vault import backends
from holdfast.vault.backends.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

TOLD = os.dup(1)
"""Where the test reads: what is served prints of its own."""

READS = ("SELECT", "PRAGMA", "BEGIN", "WITH", "SAVEPOINT", "RELEASE", "EXPLAIN")
BENEATH = ("holdfast.control.database", "holdfast.base.files")
"""Who is told what to write by others, whose steps these are."""

FILE_EVENTS = ("os.rename", "os.remove", "os.link", "os.truncate")


class Steps:
    """Counts the steps of this process, and kills it before one."""

    def __init__(self, kill_at: str) -> None:
        self._kill_at = kill_at
        self._met: set[str] = set()
        self._written: set[int] = set()
        self._lock = threading.Lock()

    def step(self, name: str) -> None:
        with self._lock:
            if name == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if name in self._met:
                return
            self._met.add(name)
        say({"step": name})

    def watch(self, home: str) -> None:
        event.listen(sa.Engine, "before_cursor_execute", self._execute)
        commit: Callable[[DefaultDialect, Any], None] = DefaultDialect.do_commit

        def do_commit(dialect: DefaultDialect, connection: Any) -> None:
            if id(connection.dbapi_connection) in self._written:
                self._written.discard(id(connection.dbapi_connection))
                self.step(f"commit of {whose()}")
            commit(dialect, connection)

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
        opened = backends.open_store

        def open_store(url: str) -> Any:
            store = opened(url)
            return SteppingStore(store, self) if isinstance(store, str) else store

        for module in [one for one in sys.modules.values() if one.__name__.startswith("holdfast")]:
            if getattr(module, "open_store", None) is opened:
                module.open_store = open_store  # type: ignore[attr-defined]

        def audit(name: str, given: tuple[Any, ...]) -> None:
            if name in FILE_EVENTS and os.fspath(given[0]).startswith(home):
                self.step(f"{name.removeprefix('os.')} by {whose()}")

        sys.addaudithook(audit)

    def _execute(self, connection: sa.Connection, _: Any, statement: str, *_more: Any) -> None:
        if not statement.lstrip().upper().startswith(READS):
            self._written.add(id(connection.connection.dbapi_connection))


class SteppingStore(DirectoryStore):
    """A directory as a pool, each change of which is a step."""

    def __init__(self, root: str, steps: Steps) -> None:
        super().__init__(root)
        self._steps = steps

    def put(self, key: str, data: bytes) -> None:
        self._steps.step(f"put into {key.split('/')[0]}")
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._steps.step(f"put into {key.split('/')[0]}")
        return super().put_if_absent(key, data)

    def delete(self, key: str) -> None:
        self._steps.step(f"delete from {key.split('/')[0]}")
        super().delete(key)


def whose() -> str:
    """The function of the product that began what happens now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("holdfast.") and not module.startswith(BENEATH):
            return f"{module.removeprefix('holdfast.')}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "nobody"


def say(what: dict[str, Any]) -> None:
    os.write(TOLD, json.dumps(what).encode() + b"\n")


def serve(kill_at: str | None) -> int:
    from holdfast.faces.cli.main import run

    home = os.environ["HOLDFAST_HOME"]
    if kill_at is not None:
        Steps(kill_at).watch(home)
    log = os.open(Path(home, "serve.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return run(["serve"])


def rounds() -> None:
    # What each round would import anew.
    import holdfast.faces.api.app
    import holdfast.faces.api.serving
    import holdfast.faces.cli.serve
    import holdfast.site.master
    import holdfast.site.service
    import holdfast.vault.pool  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = serve(json.loads(line))
            finally:
                os._exit(status)
        say({"began": pid})
        say({"ended": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})


if __name__ == "__main__":
    rounds()
