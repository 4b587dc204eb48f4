"""Have a guest trim its file systems before it is frozen: then what it deleted costs nothing.

Must not fail a backup: whatever becomes of it is a remark. Invariant: a guest is asked while
nothing of a backup has begun, and waited for no longer than it was given; one that trims on is not
asked to freeze, which it would do when nobody waits for that any more.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from holdfast.base.errors import HoldfastError, TooSlow
from holdfast.base.units import format_duration, format_size
from holdfast.sources.machines.guest_agent import SYNC_TIMEOUT_S, GuestAgent
from holdfast.sources.machines.provider import NOT_TRIMMED, Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from holdfast.sources.machines.provider import SnapshotOrder

TRIMMED: Final = "trimmed"

COMMAND: Final = "guest-fstrim"
SILENT: Final = "see that qemu-guest-agent runs in the machine"
BUSY: Final = "its agent is still busy with trimming"

_ALIVE_S = 1.0
_AGAIN_S = 1.0
_SHOWN = 3
_LONGEST = 200
_HOLDS_NOTHING = frozenset({"squashfs", "erofs", "iso9660", "udf", "cramfs", "romfs"})
"""File systems that nobody writes to: there is nothing to be given back."""

_LOG = logging.getLogger("holdfast.machines")


class Guest(Protocol):
    """The agent of one guest, as it is reached."""

    def ask(self, command: str, within_s: float) -> Any:
        """Give it a command without arguments; what it answers.

        Raises:
            TooSlow: It did not answer in that time, and may yet do what it was told.
            HoldfastError: It does not take it, or can't be reached.
        """
        ...

    def require_free(self) -> None:
        """Make sure that it listens again, after it did not answer in time.

        Raises:
            HoldfastError: It does not.
        """
        ...

    def close(self) -> None:
        """Let others ask it; an answer that is waited for in another thread does not come."""
        ...


class SocketGuest:
    """See `Guest`: at a socket of QEMU's."""

    def __init__(self, path: str) -> None:
        """Name it; nobody is asked."""
        self._path = path
        self._held: GuestAgent | None = None
        self._is_over = False

    def ask(self, command: str, within_s: float) -> Any:
        """See `Guest.ask`."""
        held = self._held
        if held is None:
            held = self._held = GuestAgent(self._path)
            if self._is_over:  # in another thread, while this one connected
                held.close()
                raise TooSlow("nobody waits for an answer any more")
        try:
            return held.ask(command, within_s)
        except HoldfastError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise TooSlow(error.message, error.hint) from error
            raise

    def require_free(self) -> None:
        """See `Guest.require_free`."""
        # On the same connection its answer would be taken for that of the next question.
        self._let_go()
        self._held = GuestAgent(self._path)

    def close(self) -> None:
        """See `Guest.close`."""
        self._is_over = True
        self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.close()


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What came of it.

    Attributes:
        remarks: In words.
        is_at_work: The guest did not answer in time, and its agent does nothing else meanwhile.
    """

    remarks: tuple[Remark, ...] = ()
    is_at_work: bool = False


def trim_before(
    order: SnapshotOrder,
    alive: Callable[[], None],
    *,
    guest: Guest | str,
    disks: Sequence[str],
    kept: Collection[str],
    how: str,
) -> Trimmed:
    """Have a guest trim before a backup, unless its hypervisor would make nothing of that.

    Args:
        order: Of the backup.
        alive: Called again and again; what it raises ends the waiting.
        guest: Its agent; or in words why it has none.
        disks: Names of the disks that are wanted, and that the guest may write.
        kept: Those of them of which the hypervisor gives nothing back.
        how: In words, to have it give that back.
    """
    told = tuple(keeping([one for one in disks if one in kept], how))
    if all(one in kept for one in disks):
        return Trimmed(told)
    if isinstance(guest, str):
        return Trimmed((*told, without_agent(guest)))
    done = trim(guest, order, alive)
    return replace(done, remarks=(*told, *done.remarks))


def trim(guest: Guest, order: SnapshotOrder, alive: Callable[[], None]) -> Trimmed:
    """Have a guest trim, and wait for it as long as the order says.

    A guest that has to be brought to rest is waited for once more as long.

    Args:
        guest: Its agent; let go of in every outcome.
        order: Of the backup.
        alive: Called again and again; what it raises ends the waiting.
    """
    within = format_duration(order.trim_s)
    _LOG.info("machine %s is asked to trim, and waited for up to %s", order.uuid, within)
    began = time.monotonic()
    asked: Future[Any] = Future()
    # No answer may come for as long as the guest wants: nobody waits for the thread.
    threading.Thread(target=_ask, args=(guest, order, asked), name="trim", daemon=True).start()
    try:
        while not wait([asked], _ALIVE_S).done:
            alive()
        took = format_duration(time.monotonic() - began)
        try:
            said = asked.result()
        except HoldfastError as error:
            late = isinstance(error, TooSlow)
            busy = late and not (order.require_quiesce and _is_free_again(guest, order, alive))
            return Trimmed((_failed(error, within),), busy)
        _LOG.info("machine %s was asked to trim, which took %s", order.uuid, took)
        return Trimmed(tuple(_told(said, guest, took)))
    finally:
        guest.close()


def without_agent(reason: str) -> Remark:
    """That nobody in the guest can be asked."""
    return _not_trimmed(f"the guest was not asked to trim: {reason}", SILENT)


def of_nothing() -> Remark:
    """That a machine does not run."""
    text = "nothing was trimmed: the machine does not run"
    return Remark("info", NOT_TRIMMED, text)


def keeping(disks: Iterable[str], how: str) -> list[Remark]:
    """That what a guest trims of some disks stays allocated at its hypervisor.

    Args:
        disks: Their names.
        how: To have it given back.
    """
    found = []
    for one in disks:
        kept = f"what the guest trims of disk '{one}' stays allocated: it has no discard=unmap"
        found.append(Remark("warning", NOT_TRIMMED, f"{kept}; {how}", one))
    return found


def _ask(guest: Guest, order: SnapshotOrder, asked: Future[Any]) -> None:
    try:
        asked.set_result(guest.ask(COMMAND, order.trim_s))
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
        asked.set_exception(error)


def _is_free_again(guest: Guest, order: SnapshotOrder, alive: Callable[[], None]) -> bool:
    until = time.monotonic() + order.trim_s
    while time.monotonic() < until:
        alive()
        with contextlib.suppress(HoldfastError):
            guest.require_free()
            return True
        time.sleep(_AGAIN_S)
    return False


def _failed(error: HoldfastError, within: str) -> Remark:
    if isinstance(error, TooSlow):
        return _not_trimmed(
            f"the guest was not done with trimming after {within}, and goes on with it",
            "give 'trim_timeout' more, or have it trim by itself: systemctl enable fstrim.timer",
        )
    hint = error.hint
    if "disabled" in error.message or "not been found" in error.message:
        hint = f"have its agent allow {COMMAND}: see 'qemu-ga --help' there"
    return _not_trimmed(f"the guest did not trim: {error.message}", hint)


def _told(said: Any, guest: Guest, took: str) -> list[Remark]:
    """What an agent's answer comes to; one of before 2.4 says nothing but that it is done."""
    paths = _objects(said.get("paths") if isinstance(said, dict) else None)
    failed = {_text(one.get("path")): _text(one["error"]) for one in paths if "error" in one}
    done = [one for one in paths if "error" not in one]
    found = []
    if done or not paths:
        given = sum(one for one in (each.get("trimmed") for each in done) if isinstance(one, int))
        many = f" {len(done)} of its file systems" if done else ""
        size = f", {format_size(given)} of them" if given > 0 else ""
        found.append(Remark("info", TRIMMED, f"the guest trimmed{many} in {took}{size}"))
    if failed:
        nothing = _without_anything(guest)
        failed = {path: why for path, why in failed.items() if path not in nothing}
    return [*found, _not_all(failed)] if failed else found


def _not_all(failed: Mapping[str, str]) -> Remark:
    shown = [f"'{path}' ({why})" for path, why in islice(failed.items(), _SHOWN)]
    more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
    return _not_trimmed(
        f"the guest did not trim {', '.join(shown)}{more}",
        f"see what 'fstrim -v {next(iter(failed))}' says there",
    )


def _without_anything(guest: Guest) -> set[str]:
    """Where file systems are mounted that have nothing to give back, such as those of snaps."""
    with contextlib.suppress(HoldfastError):
        told = guest.ask("guest-get-fsinfo", SYNC_TIMEOUT_S)
        return {
            _text(one.get("mountpoint"))
            for one in _objects(told)
            if _text(one.get("type")) in _HOLDS_NOTHING
        }
    return set()


def _objects(said: Any) -> list[dict[str, Any]]:
    """Whatever a guest says, which may say anything."""
    return [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []


def _text(said: Any) -> str:
    return str(said)[:_LONGEST]


def _not_trimmed(message: str, hint: str | None) -> Remark:
    return Remark("warning", NOT_TRIMMED, f"{message}; {hint}" if hint else message)
