"""Policies of the type ``files``: directories and files of a client.

Must not look at any file: see `live`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from holdfast.base import exclusion
from holdfast.base.errors import Invalid
from holdfast.control.policies.client_checks import check_clients
from holdfast.control.policies.clients import outermost, parents
from holdfast.control.policies.findings import Finding, error, inside, warning
from holdfast.control.policies.policy import ALL_LOCAL_DRIVES, Drives
from holdfast.control.policies.reading import shown
from holdfast.control.policies.types import TYPES
from holdfast.control.policies.verify_boot import KEY as VERIFY_BOOT
from holdfast.control.schedule import BackupKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.control.policies.policy import Policy, Selection
    from holdfast.control.policies.validation import SiteFacts

_EVERYTHING = {"*", "**", "/*", "/**", "**/*"}


@dataclass(frozen=True, slots=True)
class FilesType:
    """Directories and files of a client."""

    name: str = "files"
    summary: str = "directories and files of a client"
    kinds: frozenset[BackupKind] = frozenset(BackupKind)

    def check(self, policy: Policy, site: SiteFacts) -> Iterator[Finding]:
        """Look at the clients, at each selection, and at how they lie to each other."""
        if policy.machines is not None:
            hint = 'write type = "machines" as well, or leave it out'
            yield error("machines", f"a policy of the type '{self.name}' has none", hint)
        if policy.verify_boot is not None:
            hint = "leave it out: only virtual machines are booted"
            yield error(VERIFY_BOOT, f"a policy of the type '{self.name}' has none", hint)
        yield from check_clients(policy, site)
        if not policy.selections:
            hint = 'write for example selections = [{ name = "home", paths = ["/home"] }]'
            yield error("selections", "nothing is selected", hint)
        for number, selection in enumerate(policy.selections):
            place = inside("selections", number)
            yield from _paths(selection, inside(place, "paths"))
            yield from _rules(selection, inside(place, "exclude"))
        yield from _side_by_side(policy)


def _paths(selection: Selection, place: str) -> Iterator[Finding]:
    if isinstance(selection.paths, Drives):
        return
    if not selection.paths:
        hint = f'name at least one, or write paths = "{ALL_LOCAL_DRIVES.value}"'
        yield error(place, "no path is named", hint)
    named = {os.path.normpath(path): number for number, path in enumerate(selection.paths)}
    for number, path in enumerate(selection.paths):
        at = inside(place, number)
        normal = os.path.normpath(path)
        outer = next((one for one in parents(normal) if one in named), None)
        if not path.startswith("/"):
            yield error(at, f"'{shown(path)}' is not absolute", "begin it with '/'")
        elif ".." in path.split("/"):
            yield error(at, f"'{shown(path)}' climbs with '..'", "write where it leads to")
        elif named[normal] != number:
            yield warning(at, f"'{shown(path)}' is named twice", "leave one of them out")
        elif outer is not None and not selection.one_file_system:
            message = f"'{shown(path)}' lies in '{shown(outer)}', which is named as well"
            yield warning(at, message, "leave it out")


def _rules(selection: Selection, place: str) -> Iterator[Finding]:
    rules = selection.exclude
    for number, rule in enumerate(rules):
        at = inside(place, number)
        wrong = exclusion.fault(rule)
        if "\n" in rule:
            yield error(at, f"'{shown(rule)}' is more than one line", "write a rule for each")
        elif wrong is not None:
            yield error(at, f"'{shown(rule)}' {wrong}", exclusion.HINT)
        elif rule in _EVERYTHING and not any(one.startswith("!") for one in rules[number:]):
            yield warning(
                at,
                f"'{rule}' leaves out everything below the paths",
                "say with a later rule that begins with '!' what is to stay",
            )


def _side_by_side(policy: Policy) -> Iterator[Finding]:
    """Two selections are two sources: of the same name they would be one, and of one file two."""
    same: dict[tuple[str, ...] | Drives, int] = {}
    for number, selection in enumerate(policy.selections):
        place = inside(inside("selections", number), "paths")
        paths = selection.paths
        if not isinstance(paths, Drives):
            if not all(path.startswith("/") for path in paths):
                continue
            paths = outermost(paths, nested=selection.one_file_system)
        first = same.setdefault(paths, number)
        if first != number:
            other = policy.selections[first].name
            message = f"selection '{selection.name}' takes the same paths as '{other}'"
            yield error(place, message, "leave one of them out: a source has one set of rules")
    yield from _one_in_another(policy, same)


def _one_in_another(
    policy: Policy, numbers: dict[tuple[str, ...] | Drives, int]
) -> Iterator[Finding]:
    owners: dict[str, list[int]] = {}
    for paths, number in numbers.items():
        for path in () if isinstance(paths, Drives) else paths:
            owners.setdefault(path, []).append(number)
    for path, inner in owners.items():
        for number in inner:
            place = inside(inside("selections", number), "paths")
            for outer in (*parents(path), path):
                for other in owners.get(outer, ()):
                    selection = policy.selections[other]
                    again = outer == path and other > number
                    if other == number or again or _leaves_out(selection, outer, path):
                        continue
                    yield warning(
                        place,
                        f"'{shown(path)}' lies in '{shown(outer)}' of selection "
                        f"'{selection.name}': it is taken twice",
                        f'leave it out there: exclude = ["{shown(path)}"]',
                    )


def _leaves_out(selection: Selection, root: str, path: str) -> bool:
    """Whether the rules of a selection leave out a path below one of its own."""
    try:
        rules = _exclusion(os.fsencode(root), selection.exclude)
    except Invalid:
        # Told where the rules themselves are looked at.
        return True
    between = [one for one in (*parents(path), path) if len(one) > len(root)]
    return any(
        rules.leaves_out(os.fsencode(os.path.relpath(one, root)), is_directory=True)
        for one in between
    )


@lru_cache(maxsize=256)
def _exclusion(root: bytes, rules: tuple[str, ...]) -> exclusion.Exclusion:
    return exclusion.Exclusion(root, rules)


TYPES.register(FilesType())
