"""What is wrong with policies, as far as it can be told without looking at a client.

Pure; all findings at once. Must not look at machines or storage (see `live`). Invariant: a
policy without an error here can be stored, planned and carried out; whether it succeeds is for
the world to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING

from holdfast.base.ids import ADHOC
from holdfast.control.hypervisors import Estate
from holdfast.control.policies.findings import Finding, error, inside, touch, warning
from holdfast.control.policies.policy import (
    CLIENT_ENCRYPTION,
    DEFAULT_NAMES,
    ENCRYPTION_MODES,
    NAME_MODES,
)
from holdfast.control.policies.reading import shown
from holdfast.control.policies.retained import check_retention
from holdfast.control.policies.types import TYPES, PolicyTypes
from holdfast.control.schedule import occurrences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, tzinfo

    from holdfast.base.ids import ClientName
    from holdfast.control.policies.clients import KnownClients
    from holdfast.control.policies.document import Document
    from holdfast.control.policies.policy import Policy

RESERVED = (ADHOC,)
"""Names that no policy of a site may have."""

_AHEAD_YEARS = 5
_AHEAD = timedelta(days=366 * _AHEAD_YEARS)
_SHELL_WORDS = {"|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1"}


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What there is that a policy may name.

    Attributes:
        clients: Those that are known.
        storage_units: Their names.
        now: By which it is judged what is over, aware.
        zone: Of the site.
        types: Of policies.
        agents: Clients with a machine of their own; None if that is not known.
        estate: Hypervisors, and the virtual machines that were found on them.
    """

    clients: KnownClients
    storage_units: frozenset[str]
    now: datetime
    zone: tzinfo
    types: PolicyTypes = TYPES
    agents: frozenset[ClientName] | None = None
    estate: Estate = field(default_factory=Estate)


def validate(policies: Sequence[Policy], site: SiteFacts) -> list[Finding]:
    """Look for what is wrong with policies, each by itself and all together."""
    found: list[Finding] = []
    names: set[str] = set()
    for policy in policies:
        findings = [*_twice(policy, names), *_check(policy, site)]
        found.extend(replace(one, policy=policy.name) for one in findings)
        names.add(policy.name)
    return found


def review(document: Document, site: SiteFacts) -> list[Finding]:
    """All that is wrong with a document: what could not be read, and what was read and is wrong.

    What only seems wrong because something could not be read is left out.
    """
    unread: dict[str | None, list[str]] = {}
    for one in document.findings:
        unread.setdefault(one.policy, []).append(one.place)
    judged = validate(document.policies, site)
    return [
        *document.findings,
        *(
            one
            for one in judged
            if not any(touch(one.place, place) for place in unread.get(one.policy, ()))
        ),
    ]


def _twice(policy: Policy, names: set[str]) -> Iterator[Finding]:
    if policy.name in names:
        yield error("name", "there is another policy of this name", "names are one of a kind")


def _check(policy: Policy, site: SiteFacts) -> Iterator[Finding]:
    if policy.name in RESERVED:
        yield error(
            "name",
            f"'{policy.name}' is reserved for backups that are ordered by hand",
            "choose another name",
        )
    yield from _unknown("storage_unit", policy.storage_unit, site.storage_units)
    yield from _check_encryption(policy, site)
    yield from _check_commands(policy)
    yield from _check_limits(policy)
    yield from _check_names(policy)
    yield from check_retention(policy)
    yield from _check_ends(policy, site)
    yield from _check_type(policy, site)


def _check_type(policy: Policy, site: SiteFacts) -> Iterator[Finding]:
    kind = site.types.get(policy.type)
    if kind is None:
        yield from _unknown("type", policy.type, [one.name for one in site.types])
        return
    for number, schedule in enumerate(policy.schedules):
        if schedule.kind not in kind.kinds:
            place = inside(inside("schedules", number), "kind")
            message = f"a policy of the type '{kind.name}' has no backups of kind '{schedule.kind}'"
            yield error(place, message, f"it may be {', '.join(sorted(kind.kinds))}")
    yield from kind.check(policy, site)


def _check_ends(policy: Policy, site: SiteFacts) -> Iterator[Finding]:
    for number, schedule in enumerate(policy.schedules):
        if schedule.calendar is None:
            continue
        following = occurrences(schedule, site.zone, site.now, site.now + _AHEAD)
        if next(following, None) is None:
            place = inside(inside("schedules", number), "calendar")
            message = f"schedule '{schedule.name}' is not due in the next {_AHEAD_YEARS} years"
            yield warning(place, message, "look at UNTIL of its rules, and at its dates")


def _check_encryption(policy: Policy, site: SiteFacts) -> Iterator[Finding]:
    yield from _unknown("encryption", policy.encryption, ENCRYPTION_MODES)
    yield from _unknown("names", policy.names, NAME_MODES)
    if policy.encryption != CLIENT_ENCRYPTION:
        hint = f'write encryption = "{CLIENT_ENCRYPTION}", or leave it out'
        if policy.client_key is not None:
            yield error("client_key", "no client seals: the storage unit does", hint)
        if policy.names != DEFAULT_NAMES:
            yield error("names", "no client seals: the storage unit does", hint)
        return
    if policy.client_key is None:
        hint = "make one on the client with 'holdfast client-key create NAME', and name it here"
        yield error("client_key", "it does not say with which key clients seal", hint)
    if site.agents is None or policy.client_query is not None:
        return
    for number, name in enumerate(policy.clients):
        if name in site.clients and name not in site.agents:
            message = (
                f"client '{name}' is backed up by the site itself, which has the pool's key: a "
                "client key would keep nothing from anybody"
            )
            hint = "have it join with an agent of its own: holdfast machine token"
            yield error(inside("clients", number), message, hint)


def _unknown(place: str, name: str, known: Iterable[str]) -> Iterator[Finding]:
    names = sorted(known)
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there is {', '.join(names) or 'none yet'}"
    yield error(place, f"there is no {_NOUNS[place]} '{shown(name)}'", hint)


_NOUNS = {
    "storage_unit": "storage unit",
    "encryption": "mode of encryption",
    "names": "way to keep names",
    "type": "type of policies",
}


def _check_commands(policy: Policy) -> Iterator[Finding]:
    for key, words in (("pre_command", policy.pre_command), ("post_command", policy.post_command)):
        for number, word in enumerate(words):
            if number and word in _SHELL_WORDS:
                yield warning(
                    inside(key, number),
                    f"'{word}' is given to the program as a word: no shell is used",
                    f'if you mean a shell, write {key} = ["/bin/sh", "-c", "…"]',
                )
        if not words or words[0].startswith("/"):
            continue
        message = (
            f"'{shown(words[0])}' is not an absolute path: which program that is, PATH decides"
        )
        if " " in words[0] and len(words) == 1:
            message = f"'{shown(words[0])}' is taken as the name of one program, blanks and all"
        hint = f'write {key} = ["/usr/bin/program", "argument"]'
        yield warning(inside(key, 0), message, hint)


def _check_limits(policy: Policy) -> Iterator[Finding]:
    jobs, streams = policy.limits.jobs, policy.limits.streams_per_client
    if jobs is not None and streams > jobs:
        message = f"{streams} streams of one client can't run where {jobs} jobs are the limit"
        yield warning("limits.streams_per_client", message, "allow as many jobs")
    if policy.streams > streams:
        message = (
            f"a path is divided into up to {policy.streams} streams, and of one client "
            f"{streams} run{'s' * (streams == 1)} at once"
        )
        hint = f"write limits = {{ streams_per_client = {policy.streams} }}"
        yield warning("streams", message, hint)


def _check_names(policy: Policy) -> Iterator[Finding]:
    if not policy.schedules:
        hint = "it runs by 'holdfast policy run' alone"
        yield warning("schedules", "it has no schedule", hint)
    for key, names in (
        ("selections", [one.name for one in policy.selections]),
        ("schedules", [one.name for one in policy.schedules]),
    ):
        seen: set[str] = set()
        for number, name in enumerate(names):
            if name in seen:
                place = inside(inside(key, number), "name")
                yield error(place, f"there are two {key} called '{name}'", "rename one of them")
            seen.add(name)
