"""Look at what a policy would back up on this machine, as the process that would read it.

Must not read what files hold, change anything, nor judge policies. Invariants: what is said to be
in the way is the true cause; nothing is waited for much longer than the order allows, even where a
file system does not answer.
"""

from __future__ import annotations

import os
import queue
import shutil
import stat
import threading
import time
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from holdfast.base.errors import HoldfastError, NotFound
from holdfast.base.units import format_count, format_duration
from holdfast.movers.drives import ALL_LOCAL_DRIVES, local_drives
from holdfast.movers.mounts import KERNEL_ONLY, mount_of, mounts
from holdfast.movers.reader import Reader, why_refused
from holdfast.movers.survey import Bounds, Survey, mark_of, survey
from holdfast.wire.looking import LookOrder, LookReport, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

ANSWER_S = 10.0
"""A file system that has not answered for so long, beside the time of the order, does not."""


def look(
    order: LookOrder,
    now_s: Callable[[], float] = time.monotonic,
    answer_s: float = ANSWER_S,
    has_key: Callable[[str], object] | None = None,
) -> LookReport:
    """Look at the paths and programs of an order, and say what is in the way.

    Args:
        order: What to look at.
        now_s: A clock that only goes forward, in seconds.
        answer_s: How long to wait for a file system that does not answer.
        has_key: Raises if a client key is not here; None where none can be used.

    Raises:
        Invalid: A rule of exclusion is none.
    """
    reader = Reader.of_this_process()
    troubles = [one for program in order.programs for one in _program(program, reader)]
    troubles += _client_key(order.client_key, has_key)
    try:
        given = _paths(order)
    except NotFound as error:
        return LookReport(
            str(reader), (*troubles, Trouble("error", "missing", error.message, error.hint))
        )
    good: list[bytes] = []
    for path, about in given:
        found = _answered(partial(_path, path, about, reader, sealed=order.sealed_names), answer_s)
        troubles += [_silent(path, about, answer_s)] if found is None else found
        if found is not None and not any(one.severity == "error" for one in found):
            good.append(path)
    bounds = Bounds(
        most_names=order.most_names,
        ends_s=now_s() + order.within_s,
        now_s=now_s,
        one_file_system=order.one_file_system or order.paths == (ALL_LOCAL_DRIVES,),
        mounts=mounts(),
        checks=not reader.reads_all,
    )
    counted = _answered(partial(survey, good, order.exclude, bounds), order.within_s + answer_s)
    counted = counted or Survey()
    if good:
        troubles += _counted(counted, reader, sealed=order.sealed_names)
    return LookReport(
        reader=str(reader),
        troubles=tuple(troubles),
        names=counted.names,
        left_out=counted.left_out,
        size_bytes=counted.size_bytes,
        is_complete=counted.is_complete and len(good) == len(given),
    )


def _paths(order: LookOrder) -> list[tuple[bytes, str]]:
    """What is looked at, each with the word of the order that it comes from."""
    if order.paths == (ALL_LOCAL_DRIVES,):
        return [(path, ALL_LOCAL_DRIVES) for path in local_drives()]
    return [(os.path.normpath(os.fsencode(path)), path) for path in order.paths]


def _path(path: bytes, about: str, reader: Reader, *, sealed: bool) -> list[Trouble]:
    return list(_troubles(path, about, reader, sealed=sealed))


def _troubles(path: bytes, about: str, reader: Reader, *, sealed: bool) -> Iterator[Trouble]:
    shown = _shown(path)
    try:
        state = os.lstat(path)
        if stat.S_ISLNK(state.st_mode):
            target = _shown(os.path.realpath(path))
            message = f"'{shown}' is a symbolic link: it is backed up itself, not what it leads to"
            hint = "name that" if sealed else f"name '{target}'"
            yield Trouble("warning", "symbolic-link", message, hint, about)
        elif stat.S_ISDIR(state.st_mode):
            os.scandir(path).close()
            yield from _directory(path, about)
        elif stat.S_ISREG(state.st_mode) and not os.access(path, os.R_OK, effective_ids=True):
            raise PermissionError
    except PermissionError:
        message, hint = why_refused(path, reader)
        yield Trouble("error", "no-permission", message, hint, about)
    except (FileNotFoundError, NotADirectoryError):
        message, missing_hint = _missing(path, sealed=sealed)
        yield Trouble("error", "missing", message, missing_hint, about)
    except OSError as error:
        mount = mount_of(path, mounts())
        message = f"'{shown}', on {mount}, can't be looked at: {error.strerror}"
        yield Trouble("error", "io", message, "look at the disk or network below it", about)


def _directory(path: bytes, about: str) -> Iterator[Trouble]:
    shown = _shown(path)
    mount = mount_of(path, mounts())
    if mount is not None and mount.kind in KERNEL_ONLY:
        message = f"'{shown}' is {mount.kind}: it only shows the kernel's state"
        yield Trouble("warning", "kernel-only", message, "leave it out", about)
    mark = mark_of(path)
    if mark is not None:
        name = _shown(mark)
        message = f"everything in '{shown}' is left out, because '{name}' is in it"
        hint = f"remove '{name}' there, or leave the path out"
        yield Trouble("error", "marked", message, hint, about)


def _missing(path: bytes, *, sealed: bool) -> tuple[str, str]:
    """Which part of a path is missing, and which name was perhaps meant."""
    above, name = os.path.split(path)
    while not os.path.lexists(above):
        above, name = os.path.split(above)
    shown, part = _shown(path), _shown(name)
    if not os.path.isdir(above):
        kind = "link that leads nowhere" if os.path.islink(above) else "file"
        return f"there is no '{shown}': '{_shown(above)}' is a {kind}", "check the spelling"
    try:
        names = [] if sealed else [_shown(one) for one in os.listdir(above)]
    except OSError:
        names = []
    near = get_close_matches(part, names, n=1)
    meant = _shown(os.path.join(above, os.fsencode(near[0]))) if near else None
    hint = f"did you mean '{meant}'?" if meant else "check the spelling, and what is mounted"
    return f"there is no '{shown}': '{_shown(above)}' has no '{part}'", hint


def _program(program: str, reader: Reader) -> Iterator[Trouble]:
    if os.path.isabs(program) and not os.path.exists(program):
        message = f"there is no program '{program}'"
        yield Trouble("error", "missing", message, "check the spelling", program)
    elif shutil.which(program) is None:
        message = (
            f"'{program}' is no program that {reader} may run"
            if os.path.isabs(program)
            else f"PATH leads to no program '{program}'"
        )
        hint = "make it executable" if os.path.isabs(program) else "write its absolute path"
        yield Trouble("error", "no-permission", message, hint, program)


def _client_key(wanted: str | None, has_key: Callable[[str], object] | None) -> Iterator[Trouble]:
    if wanted is None:
        return
    if has_key is None:
        message = (
            "the site backs these files up itself, and it has the pool's key: a client key would "
            "keep nothing from anybody"
        )
        hint = "have the machine join with an agent of its own: holdfast machine token"
        yield Trouble("error", "no-client-key", message, hint, wanted)
        return
    try:
        has_key(wanted)
    except HoldfastError as error:
        yield Trouble("error", "no-client-key", error.message, error.hint, wanted)


def _counted(counted: Survey, reader: Reader, *, sealed: bool) -> Iterator[Trouble]:
    """What is in the way of all paths together."""
    if counted.unreadable:
        example = counted.such_as[0]
        why, hint = why_refused(example, reader)
        if sealed:
            why = f"{reader} may not"
        message = (
            f"{format_count(counted.unreadable)} of {format_count(counted.names)} names looked at "
            f"can't be read: {why}"
        )
        yield Trouble("warning", "no-permission", message, hint)
    if counted.names or not counted.is_complete:
        return
    if counted.left_out:
        message = f"everything is left out by rules: {format_count(counted.left_out)} names"
        hint = "say with a later rule that begins with '!' what is to stay"
        yield Trouble("error", "nothing-left", message, hint)
    else:
        yield Trouble("warning", "empty", "there is nothing in it", "look whether it is mounted")


def _silent(path: bytes, about: str, waited_s: float) -> Trouble:
    mount = mount_of(path, mounts())
    message = f"'{_shown(path)}' gives no answer for {format_duration(waited_s)}: it is on {mount}"
    hint = "bring back what it is mounted from, or unmount it: a backup would wait for it too"
    return Trouble("error", "silent", message, hint, about)


def _answered(function: Callable[[], T], timeout_s: float) -> T | None:
    """What a function returns; None if it takes too long."""
    answers: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(function())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            answers.put(error)

    # Whoever waits for a dead file server can't be stopped: the thread is left to itself then.
    threading.Thread(target=run, name="probe", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        return None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
