"""Policies, findings and plans in words for a person.

Must not print nor ask: plain data of the API in, lines out.
"""

from __future__ import annotations

import json
import shlex
import shutil
import textwrap
from typing import TYPE_CHECKING, Any

from holdfast.faces.cli.screen import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.faces.cli.screen import Screen

    Plain = dict[str, Any]

_SHOWN_NAMES = 5


def tell_findings(screen: Screen, findings: Iterable[Plain]) -> None:
    """Tell all findings, on stderr: errors last, where a person looks first."""
    order = {"info": 0, "warning": 1, "error": 2}
    for one in sorted(findings, key=lambda one: order[one["severity"]]):
        for line in finding_lines(one):
            screen.say(line)


def finding_lines(finding: Plain) -> list[str]:
    """A finding, and its hint on a line of its own."""
    where = where_of(finding)
    place = f"{where}: " if where else ""
    lines = [f"{finding['severity']}: {place}{printable(finding['message'])}"]
    if finding["hint"]:
        lines.append(f"  hint: {printable(finding['hint'])}")
    return lines


def where_of(finding: Plain) -> str:
    """The policy and the place of a finding."""
    policy, place = finding["policy"], finding["place"]
    if policy is None:
        return str(place)
    name = f"policy {policy}" if policy.startswith("#") else f"policy '{policy}'"
    return f"{name}, {place}" if place else name


def plan_lines(plan: Plain) -> Iterator[str]:
    """What a plan would do."""
    return (printable(line) for line in _plan_lines(plan))


def _plan_lines(plan: Plain) -> Iterator[str]:
    for policy in plan["creates"]:
        yield f"+ policy '{policy['name']}': {summary(policy)}"
    for change in plan["changes"]:
        yield f"~ policy '{change['name']}'"
        for one in change["fields"]:
            yield f"    {one['place']}: {_value(one['old'])} -> {_value(one['new'])}"
    for removal in plan["removals"]:
        yield f"- policy '{removal['name']}'"
    yield plan_total(plan)


def plan_total(plan: Plain) -> str:
    """How much a plan would do."""
    counts = ((len(plan[key]), word) for key, word in _TOTALS)
    done = ", ".join(f"{count:,} {word}" for count, word in counts if count)
    return done or "no policies"


_TOTALS = (
    ("creates", "to make"),
    ("changes", "to change"),
    ("removals", "to remove"),
    ("unchanged", "unchanged"),
    ("others", "not named, and stay"),
)


def summary(policy: Plain) -> str:
    """A policy in some words: whom it is for, and when."""
    return f"{clients_of(policy)}; {', '.join(one['name'] for one in policy.get('schedules', []))}"


def clients_of(policy: Plain) -> str:
    """Whom a policy is for."""
    machine_query = policy.get("machine_query") or policy.get("machines", {}).get("query")
    if machine_query:
        return f"virtual machines with {machine_query}"
    query = policy.get("client_query")
    return f"clients like {query}" if query else names(policy.get("clients", ()))


def names(given: Iterable[str]) -> str:
    """Some names, and how many more."""
    found = list(given)
    if len(found) <= _SHOWN_NAMES:
        return ", ".join(found) or "none"
    return f"{', '.join(found[:_SHOWN_NAMES])} and {len(found) - _SHOWN_NAMES:,} more"


def facts(detail: Plain, changed_at: str) -> list[tuple[str, str]]:
    """A policy, one fact a line.

    Args:
        detail: As the API has it.
        changed_at: For a person.
    """
    policy: Plain = detail["policy"]
    found = [
        ("policy", f"{policy['name']}, {'active' if policy['active'] else 'inactive'}"),
        ("type", policy["type"]),
        ("clients", clients_of(policy)),
    ]
    if "client_query" in policy or "machines" in policy:
        found.append(("clients now", names(detail["clients"])))
    found += machines(policy.get("machines", {}))
    found += boot_checks(policy.get("verify_boot", {}))
    found += [("selection", selection(one)) for one in policy["selections"]]
    found += [("schedule", schedule(one)) for one in policy["schedules"]]
    found += [
        ("kept", rules(policy["retention"])),
        ("storage unit", policy["storage_unit"]),
        ("limits", limits(policy["limits"])),
        ("priority", str(policy["priority"])),
        ("compression", f"zstd level {policy['compression']}"),
        ("encryption", encryption(policy)),
    ]
    if policy.get("streams", 1) > 1:
        found.append(("streams", f"up to {policy['streams']} of each path"))
    for key, word in (("pre_command", "before"), ("post_command", "after")):
        if policy[key]:
            found.append((word, shlex.join(policy[key])))
    changed = f"{changed_at} by {detail['changed_by']}, revision {detail['revision']}"
    return [*found, ("changed", changed)]


def machines(plain: Plain) -> list[tuple[str, str]]:
    """How virtual machines are taken, one fact a line; nothing for a policy that is for none."""
    found = []
    if plain.get("hypervisors"):
        found.append(("hypervisors", ", ".join(plain["hypervisors"])))
    if plain.get("leave_out"):
        found.append(("without disks", ", ".join(plain["leave_out"])))
    if plain:
        found.append(("quiesce", plain.get("quiesce", "try")))
    if plain.get("trim"):
        found.append(("trim", f"before each backup, for up to {plain.get('trim_timeout', '10m')}"))
    if plain.get("scratch"):
        found.append(("scratch", plain["scratch"]))
    return found


def boot_checks(plain: Plain) -> list[tuple[str, str]]:
    """Which images are booted, in a line; nothing for a policy that boots none."""
    if not plain:
        return []
    waits = []
    if "serial" in plain:
        waits.append(f"'{plain['serial']}' on the serial console")
    if "port" in plain:
        waits.append(f"TCP port {plain['port']}")
    if plain.get("agent"):
        waits.append("the guest agent")
    if plain.get("command"):
        waits.append(shlex.join(plain["command"]))
    return [("verify boot", f"{plain['on']}, within {plain['within']}: {', '.join(waits)}")]


def encryption(policy: Plain) -> str:
    """Who seals: ``client, with client key 'office', names sealed``."""
    if "client_key" not in policy:
        return str(policy["encryption"])
    return (
        f"{policy['encryption']}, with client key '{policy['client_key']}', names {policy['names']}"
    )


def selection(plain: Plain) -> str:
    """What is taken."""
    paths = plain["paths"]
    taken = "all local drives" if isinstance(paths, str) else shlex.join(paths)
    without = f"; without {shlex.join(plain['exclude'])}" if plain.get("exclude") else ""
    own = "; on one file system" if plain.get("one_file_system") else ""
    return f"{plain['name']}: {taken}{without}{own}"


def schedule(plain: Plain) -> str:
    """When something is taken."""
    parts = [plain["kind"]]
    if "every" in plain:
        parts.append(f"every {plain['every']}")
    calendar = plain.get("calendar", {})
    parts += [*calendar.get("rules", ()), *calendar.get("dates", ())]
    for key, word in (("except_rules", "not"), ("except_dates", "not")):
        parts += [f"{word} {one}" for one in calendar.get(key, ())]
    if plain.get("windows"):
        parts.append(f"starting {' or '.join(plain['windows'])}")
    if "zone" in plain:
        parts.append(plain["zone"])
    if plain.get("retention"):
        parts.append(f"kept {rules(plain['retention'])}")
    return f"{plain['name']}: {', '.join(parts)}"


def rules(plain: Plain) -> str:
    """How long images are kept: ``daily 14, weekly 8``."""
    return ", ".join(f"{key} {value}" for key, value in plain.items()) or "for ever"


def limits(plain: Plain) -> str:
    """How much may run at once."""
    jobs = f"{plain['jobs']} jobs, " if "jobs" in plain else ""
    return f"{jobs}{plain.get('streams_per_client', 1)} at once on a client"


def wrapped(screen: Screen, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names and values in lines that fit a terminal; whole off one."""
    found = [(name, printable(value)) for name, value in pairs]
    indent = max((len(name) for name, _ in found), default=0) + 2
    width = shutil.get_terminal_size().columns if screen.data_is_terminal else 1 << 30
    before = ""
    for name, value in found:
        shown = "" if name == before else name
        before = name
        lines = textwrap.wrap(
            value,
            max(width - indent, 20),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for number, line in enumerate(lines or [""]):
            yield f"{shown if number == 0 else '':<{indent}}{line}".rstrip()


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
