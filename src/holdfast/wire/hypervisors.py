"""What a master asks whoever reaches a hypervisor: which machines are there, what is in the way.

Must not act. Invariant: every message is plain data that passes JSON unchanged; whatever is said of
machines is of its type and within its bounds, or the report is refused.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from holdfast.base.errors import Invalid
from holdfast.sources.machines.machine import Disk, Machine, Network, State
from holdfast.sources.machines.provider import Remark
from holdfast.wire.fields import MAX_LIST, Reader
from holdfast.wire.machine_work import Reached

VERSION: Final = 1

LIST, TRY = "virtual-machines", "try-virtual-machine"

MOST_AT_ONCE: Final = 1000
"""So many machines are told in one report; more are asked for."""

MAX_REPORT_BYTES: Final = 2 << 20
"""A report is no longer; where that is less than `MOST_AT_ONCE` machines, it has fewer."""

_SEVERITIES = frozenset({"info", "warning", "error"})


@dataclass(frozen=True, slots=True)
class ListOrder:
    """Tell the machines of a hypervisor.

    Attributes:
        reached: The hypervisor.
        after: Only those with higher uuids.
    """

    reached: Reached
    after: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        return {"version": VERSION, "ask": LIST, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ListOrder:
        """Read what `to_json` made.

        Raises:
            Invalid: It is of a newer version, or not complete.
        """
        _require_known(data, "ask", LIST)
        given = Reader(data, f"the order '{LIST}'")
        return cls(_reached(given), given.maybe_text("after") or "")


@dataclass(frozen=True, slots=True)
class ListReport:
    """Some machines, by their uuids.

    Attributes:
        machines: They.
        is_whole: Whether these are the last.
    """

    machines: tuple[Machine, ...]
    is_whole: bool = True

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        return {
            "version": VERSION,
            "answer": LIST,
            "machines": [one.to_json() for one in self.machines],
            "is_whole": self.is_whole,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ListReport:
        """Read what `to_json` made, whoever says so.

        Raises:
            Invalid: It is of a newer version, or not as it should be.
        """
        _require_known(data, "answer", LIST)
        given = Reader(data, f"the report '{LIST}'")
        machines = tuple(_machine(one) for one in given.records("machines", MOST_AT_ONCE))
        return cls(machines, given.flag("is_whole"))


@dataclass(frozen=True, slots=True)
class TryOrder:
    """Look whether a backup of a machine would come to pass.

    Attributes:
        reached: Its hypervisor.
        machine: Its uuid.
        scratch: As in `machine_work.MachineWork`.
        trim: Whether its guest is to trim; who does not know of that passes it over.
        leave_out: Names of disks that are not wanted; who does not know of that tries all.
    """

    reached: Reached
    machine: str
    scratch: str | None = None
    trim: bool = False
    leave_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        return {"version": VERSION, "ask": TRY, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TryOrder:
        """Read what `to_json` made.

        Raises:
            Invalid: It is of a newer version, or not complete.
        """
        _require_known(data, "ask", TRY)
        given = Reader(data, f"the order '{TRY}'")
        scratch, trim = given.maybe_text("scratch"), given.flag("trim")
        left_out = given.texts("leave_out")
        return cls(_reached(given), given.text("machine"), scratch, trim, left_out)


@dataclass(frozen=True, slots=True)
class TryReport:
    """What is in the way of a backup of a machine, and what is good to know."""

    remarks: tuple[Remark, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        remarks = [asdict(one) for one in self.remarks]
        return {"version": VERSION, "answer": TRY, "remarks": remarks}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TryReport:
        """Read what `to_json` made, whoever says so.

        Raises:
            Invalid: It is of a newer version, or not as it should be.
        """
        _require_known(data, "answer", TRY)
        given = Reader(data, f"the report '{TRY}'")
        return cls(tuple(_remark(one) for one in given.records("remarks", MAX_LIST)))


def _reached(given: Reader) -> Reached:
    inner = Reader(given.record("reached"), "how a hypervisor is reached")
    return Reached(
        inner.text("hypervisor"),
        inner.text("provider"),
        inner.text("url"),
        inner.texts_by_name("credentials"),
    )


def _remark(given: Reader) -> Remark:
    severity = given.text("severity")
    if severity not in _SEVERITIES:
        raise Invalid(f"a remark is not '{severity[:40]}'")
    return Remark(severity, given.text("code"), given.text("message"), given.maybe_text("about"))


def _machine(given: Reader) -> Machine:
    state = given.text("state")
    return Machine(
        uuid=given.text("uuid"),
        name=given.text("name"),
        host=given.text("host"),
        state=State(state) if state in set(State) else State.UNKNOWN,
        folder=given.maybe_text("folder") or "",
        tags=given.texts("tags"),
        guest=given.maybe_text("guest") or "",
        disks=tuple(_disk(one) for one in given.records("disks", MAX_LIST)),
        networks=tuple(_network(one) for one in given.records("networks", MAX_LIST)),
        memory=given.count("memory"),
        cpus=given.count("cpus"),
        datastores=given.texts("datastores"),
    )


def _disk(given: Reader) -> Disk:
    return Disk(
        name=given.text("name"),
        size=given.count("size"),
        place=given.text("place"),
        format=given.text("format"),
        left_out=given.maybe_text("left_out"),
        allocated=given.count("allocated") if given.has("allocated") else None,
    )


def _network(given: Reader) -> Network:
    return Network(given.text("mac"), given.text("network"), given.text("model"))


def _require_known(data: dict[str, Any], role: str, wanted: str) -> None:
    version, what = data.get("version"), data.get(role)
    if not isinstance(version, int) or version > VERSION or what != wanted:
        raise Invalid(
            f"the message '{str(what)[:40]}', version {str(version)[:40]}, is not known here",
            f"this Holdfast knows '{wanted}' up to version {VERSION}: update it",
        )
