"""Pools on a media server's own disk: made and opened as the master says, and looked after.

Must not speak to the master, nor decide which pools there are. Invariants: a pool's key is in
memory alone; a pool is known here, by a line in ``pools.toml`` of the machine's home, before the
master hears of it; nothing is written but there, and in the directories of pools; a disk that is
gone or stands still costs its own pool, and keeps nobody else waiting.
"""

from __future__ import annotations

import os
import threading
import time
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast.base.config import toml_text
from holdfast.base.errors import (
    Busy,
    ConfigInvalid,
    HoldfastError,
    InputOutput,
    Invalid,
    NotAPool,
    PoolExists,
    WrongKey,
    WrongState,
    storage_error,
)
from holdfast.base.files import write_whole
from holdfast.base.ids import pool_id
from holdfast.vault import create_pool, open_pool, peek_pool
from holdfast.vault.backends.open_directory import OpenDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from holdfast.base.clock import Clock
    from holdfast.engine import Pool, PoolConfig
    from holdfast.vault import PoolKey

NAME: Final = "pools.toml"
VERSION: Final = 1
LOOK_S: Final = 10.0
"""A disk that is silent for so long is as good as gone."""


@dataclass(frozen=True, slots=True)
class OwnPool:
    """A pool that is open.

    Attributes:
        pool: For its data.
        store: For its objects, as the master has them.
    """

    pool: Pool
    store: OpenDirectory


@dataclass(frozen=True, slots=True)
class Standing:
    """How the pools are.

    Attributes:
        there: Ids of those whose disk is there.
        open: Ids of those that are open.
        problems: What is wrong with the others, in words, by id.
    """

    there: tuple[str, ...]
    open: tuple[str, ...]
    problems: Mapping[str, str]


class _Known:
    """One pool. What touches its disk is done under its lock, by one thread at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.key: PoolKey | None = None
        self.opened: OwnPool | None = None
        self.problem: str | None = None
        self.looking: threading.Thread | None = None
        self.since_s = 0.0


class OwnPools:
    """Those of one media server. Thread-safe."""

    def __init__(self, home: Path, clock: Clock) -> None:
        """Read which there are; none is opened.

        Args:
            home: Of the machine.
            clock: Dates pools that are made.

        Raises:
            ConfigInvalid: The list of them can't be read.
        """
        self._home = home
        self._clock = clock
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._known = {found: _Known(path) for found, path in _load(home / NAME).items()}

    def get(self, pool: str) -> OwnPool:
        """A pool that is open.

        Raises:
            NotAPool: There is none of this id.
            Busy: Its key was not told yet.
            InputOutput: Its disk is gone, or it can't be opened.
        """
        known = self._of(pool)
        if known.problem is not None:
            raise InputOutput(f"pool {pool} can't be used: {known.problem}", _LOOK_AT_DISK)
        if known.opened is None:
            raise Busy(f"pool {pool} waits for its key, which the master tells")
        return known.opened

    def has(self, pool: str) -> bool:
        """Whether there is one of this id, open or not."""
        with self._lock:
            return pool in self._known

    def standing(self) -> Standing:
        """How they are now; see `look`."""
        with self._lock:
            known = dict(self._known)
        problems = {one: its.problem for one, its in known.items() if its.problem is not None}
        well = sorted(set(known) - set(problems))
        return Standing(
            tuple(well), tuple(one for one in well if known[one].opened is not None), problems
        )

    def make(self, path: str, key: PoolKey, naming: bytes | None, config: PoolConfig | None) -> str:
        """Make a pool; durable on return. One that was made there with this key is as good.

        Args:
            path: A directory that is empty, or not there.
            key: Its key.
            naming: See `vault.create_pool`.
            config: Likewise.

        Returns:
            Its id.

        Raises:
            Invalid: There can be no pool at this path.
            PoolExists: There is another one.
            StorageError: It can't be written.
        """
        with self._making:
            self._require_free(path)
            if _id_at(path) is not None:
                # A try that was cut off, or whose answer was lost.
                try:
                    found = pool_id(open_pool(path, secret=key, cache_dir=None).id)
                except WrongKey as error:
                    raise PoolExists(f"there is another pool at '{path}'") from error
            else:
                self._require_never_used(path)
                made = create_pool(
                    path, secret=key, clock=self._clock, config=config, naming=naming
                )
                found = pool_id(made.id)
            self._note(found, path)
        self.open(found, key)
        return found

    def open(self, pool: str, key: PoolKey, path: str | None = None) -> None:
        """Open a pool that is on this machine's disk.

        Args:
            pool: Its id.
            key: Its key; kept in memory, to open it again when its disk was gone.
            path: Where it is, if it is not where it was.

        Raises:
            NotAPool: It is not there.
            WrongKey: The key is not its own.
            StorageError: The disk can't be read.
        """
        if path is not None:
            with self._making:
                self._require_free(path, pool)
                if _id_at(path) != pool:
                    raise NotAPool(f"pool {pool} is not at '{path}'")
                self._note(pool, path)
        known = self._of(pool)
        if not known.lock.acquire(timeout=LOOK_S):
            raise InputOutput(f"the disk at '{known.path}' does not answer", _LOOK_AT_DISK)
        try:
            opened = known.opened
            if opened is not None and known.key == key and _is_well(known.path, opened):
                return
            known.key = key
            known.problem = None
            known.opened = None
            known.opened = _opened(pool, known.path, key)
        except HoldfastError as error:
            known.problem = error.message
            raise
        finally:
            known.lock.release()

    def forget(self, pool: str) -> None:
        """Let go of a pool, so that its disk can be taken away; durable on return.

        The pool stays where it is. One that is not known is forgotten already. Who reads from it
        at this moment has it until that ends.

        Raises:
            InputOutput: Its disk does not answer.
            StorageError: The list of pools can't be written.
        """
        with self._making:
            with self._lock:
                paths = {one: its.path for one, its in self._known.items()}
                known = self._known.get(pool)
            if known is None:
                return
            if not known.lock.acquire(timeout=LOOK_S):
                raise InputOutput(f"the disk at '{known.path}' does not answer", _LOOK_AT_DISK)
            try:
                del paths[pool]
                _save(self._home / NAME, paths)
                with self._lock:
                    del self._known[pool]
                known.opened = known.key = None
            finally:
                known.lock.release()

    def know(self, keys: Mapping[str, PoolKey]) -> None:
        """Take keys of pools; `look` opens them."""
        for pool, key in keys.items():
            if self.has(pool):
                self._of(pool).key = key

    def look(self, within_s: float = LOOK_S) -> None:
        """Look whether the disk of each is there, and open what can be; see `standing`."""
        with self._lock:
            known = dict(self._known)
        for pool, one in known.items():
            if one.looking is None or not one.looking.is_alive():
                one.since_s = time.monotonic()
                one.looking = threading.Thread(
                    target=_look_at, args=(pool, one), name=f"look-{pool[:8]}", daemon=True
                )
                one.looking.start()
        for one in known.values():
            if one.looking is not None:
                one.looking.join(max(0.0, one.since_s + within_s - time.monotonic()))
                if one.looking.is_alive():
                    one.problem = f"its disk at '{one.path}' does not answer"

    def _of(self, pool: str) -> _Known:
        with self._lock:
            known = self._known.get(pool)
        if known is None:
            raise NotAPool(f"this media server has no pool {pool[:64]}", "it may be another one's")
        return known

    def _note(self, pool: str, path: str) -> None:
        with self._lock:
            paths = {one: its.path for one, its in self._known.items()}
        if paths.get(pool) == path:
            return
        paths[pool] = path
        _save(self._home / NAME, paths)
        with self._lock:
            known = self._known.setdefault(pool, _Known(path))
        with known.lock:
            known.path, known.opened = path, None

    def _require_never_used(self, path: str) -> None:
        with self._lock:
            known = [one for one, its in self._known.items() if its.path == path]
        if known:
            raise WrongState(
                f"at '{path}' was pool {known[0]}, and is not: is its disk mounted?", _LOOK_AT_DISK
            )

    def _require_free(self, path: str, pool: str | None = None) -> None:
        """Make sure that a directory may become a pool's, and nothing else's is in it.

        Raises:
            Invalid: It may not.
        """
        if not path.startswith("/") or os.path.normpath(path) != path or not path.isprintable():
            raise Invalid(
                f"'{path[:200]}' is no place for a pool", "name a directory by its whole path"
            )
        there = os.path.realpath(path)
        home = os.path.realpath(self._home)
        if _within(home, there) or _within(there, os.path.join(home, "machine")):
            raise Invalid(f"'{path}' is where this machine keeps what it has joined with")
        with self._lock:
            others = {one: its.path for one, its in self._known.items() if one != pool}
        for other in others.values():
            theirs = os.path.realpath(other)
            if theirs != there and (_within(theirs, there) or _within(there, theirs)):
                raise Invalid(f"'{path}' and the pool at '{other}' would lie in each other")


_LOOK_AT_DISK = "look at the disk of that media server; the pool is opened again by itself"


def _look_at(pool: str, known: _Known) -> None:
    """Have what is known of a pool be as it is."""
    if not known.lock.acquire(blocking=False):
        # Somebody is at it already, and says what comes of it.
        return
    try:
        opened = known.opened
        if opened is not None and not _is_well(known.path, opened):
            opened = known.opened = None
        if opened is None and known.key is not None:
            known.opened = _opened(pool, known.path, known.key)
        elif opened is None:
            _require_at(known.path, pool)
        known.problem = None
    except HoldfastError as error:
        known.problem = error.message
    finally:
        known.lock.release()


def _is_well(path: str, opened: OwnPool) -> bool:
    try:
        return opened.store.is_at(path) and opened.store.size("pool") is not None
    except OSError:
        return False


def _opened(pool: str, path: str, key: PoolKey) -> OwnPool:
    _require_at(path, pool)
    try:
        store = OpenDirectory(path)
    except OSError as error:
        raise storage_error(error)(f"'{path}' can't be opened: {error.strerror}") from error
    try:
        return OwnPool(open_pool(path, secret=key, cache_dir=None), store)
    except BaseException:
        store.close()
        raise


def _require_at(path: str, pool: str) -> None:
    if _id_at(path) != pool:
        raise NotAPool(f"it is not at '{path}': is its disk mounted?")


def _id_at(path: str) -> str | None:
    """The id of the pool in a directory; None for none."""
    try:
        return pool_id(peek_pool(path))
    except NotAPool:
        return None


def places(home: Path) -> list[str]:
    """Where the pools of a machine's own are.

    Raises:
        ConfigInvalid: The list of them can't be read.
    """
    return sorted(_load(home / NAME).values())


def _within(path: str, directory: str) -> bool:
    return os.path.commonpath((path, directory)) == directory


def _load(file: Path) -> dict[str, str]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"{file} can't be read: {error}") from error
    pools: Any = document.get("pools", {})
    if document.get("version") != VERSION:
        raise ConfigInvalid(f"{file} is of version {document.get('version')}, not {VERSION}")
    if not isinstance(pools, dict) or not all(isinstance(one, str) for one in pools.values()):
        raise ConfigInvalid(f"{file} does not say where pools are", "a line each: id = 'path'")
    return dict(pools)


def _save(file: Path, paths: Mapping[str, str]) -> None:
    text = (
        "# The pools on this media server's own disk. Their keys are with the master.\n"
        + toml_text({"version": VERSION})
        + "\n[pools]\n"
        + toml_text(dict(sorted(paths.items())))
    )
    try:
        write_whole(file, text.encode())
    except OSError as error:
        raise storage_error(error)(f"can't write {file}: {error.strerror}") from error
