"""What is wrong with a policy that only a look at clients, storage and history can tell.

Must not look by itself: a `Probe` does, whom the site hands in. Invariant: what is told is what
the process saw that would do the work, and not what ours may see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import quantiles
from typing import TYPE_CHECKING, Protocol

from holdfast.base.errors import HoldfastError
from holdfast.base.units import format_count, format_duration, format_size
from holdfast.control.policies.clients import PolicySource, sources
from holdfast.control.policies.findings import Finding, Severity, error, info, inside, warning
from holdfast.control.policies.policy import ALL_LOCAL_DRIVES, Drives
from holdfast.control.policies.retained import images_kept, usual_distance
from holdfast.wire.looking import LookOrder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.base.ids import ClientName, SourceName
    from holdfast.control.policies.policy import Policy, Selection
    from holdfast.control.policies.streams import Split, SplitKey
    from holdfast.wire.looking import LookReport, Trouble

MOST_CLIENTS = 20
"""So many clients of a policy are looked at; thousands would take hours."""

LEAST_RUNS = 3
"""Fewer backups than these predict nothing."""

_RECENT = 20
_SEVERITIES = {"error": Severity.ERROR, "warning": Severity.WARNING}


@dataclass(frozen=True, slots=True)
class Room:
    """A storage unit that can be written.

    Attributes:
        free_bytes: How much fits; None if nobody can tell.
    """

    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class PastBackup:
    """What a backup of a source took.

    Attributes:
        duration_s: From its beginning to its end.
        kept_bytes: What it added to the storage unit.
    """

    duration_s: float
    kept_bytes: int


class Probe(Protocol):
    """Who looks."""

    def look(self, client: ClientName, order: LookOrder) -> LookReport:
        """Let a client look at its files, as the process that would read them.

        Raises:
            HoldfastError: It can't be reached, and why.
        """
        ...

    def room(self, storage_unit: str) -> Room:
        """Try to write to a storage unit.

        Raises:
            HoldfastError: It can't be written, and why.
        """
        ...

    def history(self, source: SourceName) -> Sequence[PastBackup]:
        """The backups of a source that are known, oldest first."""
        ...

    def divided(self, key: SplitKey) -> Split | None:
        """How a path is divided into streams; None if it never was."""
        ...


def check_live(policy: Policy, clients: Sequence[ClientName], probe: Probe) -> list[Finding]:
    """Look whether a policy would succeed as things are.

    Args:
        policy: It has no errors by itself.
        clients: Those that it is for.
        probe: Who looks.

    Returns:
        Findings with the policy's name.
    """
    check = _Check(policy, probe)
    room = check.room()
    some = clients[:MOST_CLIENTS]
    for client in some:
        check.look(client)
    findings = [*check.findings(len(some)), *_times(policy, some, probe)]
    if room is not None and room.free_bytes is not None:
        findings += _capacity(policy, some, probe, check.sizes, room.free_bytes)
    if len(some) < len(clients):
        place = "clients" if policy.client_query is None else "client_query"
        message = f"{len(some)} of {format_count(len(clients))} clients were looked at"
        findings.append(info(place, message))
    return [replace(one, policy=policy.name) for one in findings]


class _Check:
    """One policy under examination. Not thread-safe.

    Attributes:
        sizes: Of what each source would take, where all of it was seen.
    """

    def __init__(self, policy: Policy, probe: Probe) -> None:
        self._policy = policy
        self._probe = probe
        self._found: dict[Finding, list[ClientName]] = {}
        self.sizes: dict[tuple[ClientName, str], int] = {}

    def room(self) -> Room | None:
        """Try the storage unit."""
        unit = self._policy.storage_unit
        try:
            return self._probe.room(unit)
        except HoldfastError as failure:
            message = f"storage unit '{unit}' can't be written: {failure.message}"
            self._found[error("storage_unit", message, failure.hint)] = []
            return None

    def look(self, client: ClientName) -> None:
        """Look at what is selected of a client."""
        programs = self._programs()
        for number, selection in enumerate(self._policy.selections):
            order = _order(selection, tuple(programs) if number == 0 else ())
            order = replace(order, sealed_names=self._policy.has_sealed_names)
            if number == 0:
                order = replace(order, client_key=self._policy.sealing_key)
            try:
                report = self._probe.look(client, order)
            except HoldfastError as failure:
                message = f"it can't be reached: {failure.message}"
                self._note(error(self._place_of(client), message, failure.hint), client)
                return
            for one in report.troubles:
                place = programs.get(one.about or "") or _place(selection, number, one)
                if one.cause == "no-client-key":
                    place = "client_key"
                finding = Finding(_SEVERITIES[one.severity], place, one.message, one.hint)
                self._note(finding, client)
            if report.is_complete:
                self.sizes[client, selection.name] = report.size_bytes

    def findings(self, looked_at: int) -> Iterator[Finding]:
        """What was found; what is alike on several clients is told once."""
        for finding, clients in self._found.items():
            if not clients or looked_at == 1:
                yield finding
                continue
            more = f" and {len(clients) - 1} more" if len(clients) > 1 else ""
            yield replace(finding, message=f"on {clients[0]}{more}: {finding.message}")

    def _note(self, finding: Finding, client: ClientName) -> None:
        self._found.setdefault(finding, []).append(client)

    def _programs(self) -> dict[str, str]:
        """Places by the programs that are named there."""
        policy = self._policy
        commands = (("post_command", policy.post_command), ("pre_command", policy.pre_command))
        return {words[0]: f"{key}[0]" for key, words in commands if words}

    def _place_of(self, client: ClientName) -> str:
        if self._policy.client_query is not None:
            return "client_query"
        return inside("clients", self._policy.clients.index(client))


def _order(selection: Selection, programs: tuple[str, ...]) -> LookOrder:
    paths = selection.paths
    return LookOrder(
        paths=(ALL_LOCAL_DRIVES.value,) if isinstance(paths, Drives) else paths,
        exclude=selection.exclude,
        one_file_system=selection.one_file_system,
        programs=programs,
    )


def _place(selection: Selection, number: int, trouble: Trouble) -> str:
    place = inside("selections", number)
    if isinstance(selection.paths, Drives) or trouble.about not in selection.paths:
        return place
    return inside(inside(place, "paths"), selection.paths.index(trouble.about))


def _times(policy: Policy, clients: Sequence[ClientName], probe: Probe) -> Iterator[Finding]:
    """Whether windows are open for long enough for what backups took so far."""
    slowest: tuple[float, ClientName] | None = None
    for client in clients:
        took_s = [_usual_s(probe.history(one.source)) for one in _sources(policy, client, probe)]
        known = [one for one in took_s if one is not None]
        together_s = max(sum(known) / policy.limits.streams_per_client, max(known, default=0))
        if slowest is None or together_s > slowest[0]:
            slowest = together_s, client
    if slowest is None:
        return
    needed = timedelta(seconds=slowest[0])
    for number, schedule in enumerate(policy.schedules):
        shortest = min((one.length for one in schedule.windows), default=needed)
        if needed > shortest:
            yield warning(
                inside(inside("schedules", number), "windows"),
                f"backups of {slowest[1]} take {format_duration(slowest[0])}, and a window is open "
                f"for {format_duration(shortest.total_seconds())}: what has not begun by then "
                "waits for the next, and what has goes on after it",
                "make the window longer, or allow more streams per client",
            )


def _usual_s(past: Sequence[PastBackup]) -> float | None:
    """How long nine of ten backups took at most; None if too few are known."""
    if len(past) < LEAST_RUNS:
        return None
    return quantiles([one.duration_s for one in past[-_RECENT:]], n=10, method="inclusive")[-1]


def _capacity(
    policy: Policy,
    clients: Sequence[ClientName],
    probe: Probe,
    sizes: dict[tuple[ClientName, str], int],
    free_bytes: int,
) -> Iterator[Finding]:
    """Whether what is to be kept fits into what is free."""
    kept = _images_kept(policy)
    first_bytes = more_bytes = 0
    for client in clients:
        known: set[str] = set()
        for one in _sources(policy, client, probe):
            past = probe.history(one.source)
            if past:
                known.add(one.selection)
            if kept is not None and len(past) >= LEAST_RUNS:
                more_bytes += _still_to_come(past, kept)
        lacking = {one.name for one in policy.selections} - known
        first_bytes += sum(sizes.get((client, one), 0) for one in lacking)
    unit = f"storage unit '{policy.storage_unit}' has {format_size(free_bytes)} free"
    hint = "give it more room, or select or keep less"
    if first_bytes > free_bytes:
        message = f"the first backups take up to {format_size(first_bytes)}, and {unit}"
        yield warning("storage_unit", message, hint)
    elif first_bytes + more_bytes > free_bytes:
        message = (
            f"what it keeps will come to some {format_size(first_bytes + more_bytes)} more, as "
            f"far as the last backups tell, and {unit}"
        )
        yield warning("retention", message, hint)


def _images_kept(policy: Policy) -> int | None:
    """How many images of each source stay at most; None if all do."""
    total = 0
    for schedule in policy.schedules:
        distance = usual_distance(schedule)
        rules = policy.retention if schedule.retention is None else schedule.retention
        kept = None if distance is None else images_kept(rules, distance)
        if kept is None:
            return None
        total += kept
    return total


def _still_to_come(past: Sequence[PastBackup], kept: int) -> int:
    """What a source will have added when as many images are kept as will be."""
    recent = [one.kept_bytes for one in past[1:][-_RECENT:]]
    each = sum(recent) // len(recent)
    return max(0, (kept - len(past)) * each)


def _sources(policy: Policy, client: ClientName, probe: Probe) -> Iterator[PolicySource]:
    # Which drives there are, the client alone knows: nothing is predicted of them.
    return sources(policy, [client], lambda _: (), probe.divided)
