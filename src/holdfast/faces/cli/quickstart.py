"""``holdfast quickstart``: the whole way once, with something real, and a second opinion.

Must not touch a site that is there already, unless HOLDFAST_HOME names it. Invariant: it says
"identical" only after a comparison that does not use the engine found no difference.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.base.clock import SystemClock
from holdfast.base.config import CONFIG_NAME
from holdfast.base.errors import EXIT_FAILED, EXIT_FINDINGS, EXIT_OK, NoSpace
from holdfast.base.ids import ImageId, client_name
from holdfast.base.units import (
    MIB,
    format_count,
    format_duration,
    format_rate,
    format_ratio,
    format_size,
)
from holdfast.faces.cli import describe, opening, options
from holdfast.faces.cli.progress import counting, reporting
from holdfast.faces.cli.screen import Screen, path_json, path_text, printable, tell_findings
from holdfast.faces.cli.words import Command
from holdfast.movers.backup_run import BackupOrder, absolute_paths
from holdfast.movers.comparison import compare_trees
from holdfast.movers.restore_run import RestoreOrder, run_restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.engine import Image, RestoreResult
    from holdfast.movers.comparison import Comparison
    from holdfast.site.site import Site

_CANDIDATES = ("/usr/share/doc", "/usr/include")
_OWNER_NOT_RESTORED = "owner-not-restored"
_LEAST_BYTES = 16 * MIB
_MOST_BYTES = 512 * MIB
_MOST_FILES = 20_000
# A kernel stamps files with a clock that ticks a few milliseconds late.
_CLOCK_TICK_NS = 20_000_000
_CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"


@dataclass(frozen=True, slots=True)
class Timed:
    """An image, and how long it took to make."""

    image: Image
    elapsed_s: float

    def number(self, name: str) -> int:
        """One of the numbers of the image."""
        return self.image.stats.get(name, 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a quickstart found out."""

    path: bytes
    first: Timed
    restored: RestoreResult
    restore_s: float
    comparison: Comparison
    compare_s: float
    second: Timed

    @property
    def identical(self) -> bool:
        """Whether what came back is what was there."""
        return self.comparison.differences_total == 0

    @property
    def findings(self) -> int:
        """Findings on single files, of backup and restore."""
        return self.first.image.findings_total + self.restored.findings_total


@click.command(
    cls=Command,
    arguments=[("PATH", "What to back up; default: something of this machine.")],
    examples=[
        "holdfast quickstart",
        "holdfast quickstart ~/Documents",
        "HOLDFAST_HOME=/srv/holdfast holdfast quickstart /etc",
    ],
)
@click.argument("path", metavar="[PATH]", required=False, type=options.PLACE)
@click.option("--keep", is_flag=True, help="Keep the site and what was restored, to look at.")
@options.json_flag
def quickstart(path: str | None, keep: bool, as_json: bool) -> int:
    """Back up a real directory, restore it, compare every byte, back it up again.

    With HOLDFAST_HOME set, the site there is used (made if missing) and stays. Otherwise
    everything happens in a temporary directory that is removed at the end.
    """
    screen = Screen(as_json=as_json)
    given = os.fsencode(path) if path is not None else os.fsencode(_something_real())
    (source,) = absolute_paths([given], os.getcwdb())
    with _workshop(keep=keep) as workshop, _site(workshop) as site:
        _require_space(source, workshop)
        screen.say(f"site        {site.home}")
        screen.say(f"pool        {site.config.pool_url} (encrypted, deduplicating)")
        screen.say(f"backing up  {printable(path_text(source))}")
        outcome = _all_steps(screen, site, source, workshop)
        _tell(screen, outcome, workshop if keep else None, site.home)
    if not outcome.identical:
        return EXIT_FAILED
    return EXIT_FINDINGS if outcome.findings else EXIT_OK


def _all_steps(screen: Screen, site: Site, source: bytes, workshop: Path) -> Outcome:
    order = BackupOrder(client=client_name(os.uname().nodename), paths=(source,))
    since_ns = site.clock.now_ns() - _CLOCK_TICK_NS
    first = _backup(screen, site, order)
    target = os.fsencode(workshop / "restored")
    started = time.monotonic()
    with reporting(screen, "restore") as (_, report):
        restored = run_restore(
            site.pool,
            RestoreOrder(ImageId(first.image.id), (), target, verify=True),
            report,
        )
    restore_s = time.monotonic() - started
    started = time.monotonic()
    owners = os.geteuid() == 0
    known = {os.path.relpath(one.path, source) for one in first.image.findings if one.path}
    # An owner that only root may set is left out of the comparison below for every file.
    known |= {
        os.path.relpath(one.path, target + source)
        for one in restored.findings
        if one.path and one.code != _OWNER_NOT_RESTORED
    }
    comparison = compare_trees(
        source,
        target + source,
        owners=owners,
        skip=frozenset(known),
        leave_out=_is_left_out,
        since_ns=since_ns,
    )
    compare_s = time.monotonic() - started
    second = _backup(screen, site, order)
    return Outcome(source, first, restored, restore_s, comparison, compare_s, second)


def _backup(screen: Screen, site: Site, order: BackupOrder) -> Timed:
    started = time.monotonic()
    with reporting(screen, "backup") as (_, report):
        image = site.commit(order, report)
    elapsed = time.monotonic() - started
    with counting(screen, "catalog: rows") as rows:
        site.catch_up(rows)
    return Timed(image, elapsed)


@contextmanager
def _workshop(*, keep: bool) -> Iterator[Path]:
    """A directory for what a quickstart leaves on disk."""
    # Not /tmp: that is often memory.
    above = os.environ.get("TMPDIR") or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else None)  # noqa: S108
    made = Path(tempfile.mkdtemp(prefix="holdfast-quickstart-", dir=above))
    try:
        yield made
    finally:
        if not keep:
            shutil.rmtree(made, onerror=_force)


def _force(remove: Callable[[str], object], path: str, _why: object) -> None:
    """Restored directories may be read-only, as the ones they came from are."""
    parent = os.path.dirname(path)
    os.chmod(parent, 0o700)
    if os.path.isdir(path) and not os.path.islink(path):
        os.chmod(path, 0o700)
        shutil.rmtree(path, ignore_errors=True)
        return
    remove(path)


def _site(workshop: Path) -> Site:
    from dataclasses import replace

    from holdfast.site.site import Site

    named = bool(os.environ.get("HOLDFAST_HOME"))
    home = opening.home() if named else workshop / "site"
    if (home / CONFIG_NAME).exists():
        return opening.open_site()
    source = replace(opening.secret_source(), ask=None)
    return Site.create(home, None, source, SystemClock())


def _something_real() -> str:
    """A directory of this machine that is neither tiny nor huge."""
    library = sysconfig.get_path("stdlib")
    candidates = [*_CANDIDATES, library, sysconfig.get_path("purelib")]
    if os.geteuid() != 0:
        # Who is not root can restore the owner of own files only: those come first.
        candidates.sort(key=lambda one: os.path.exists(one) and os.stat(one).st_uid != os.geteuid())
    for candidate in candidates:
        if os.access(candidate, os.R_OK | os.X_OK):
            size, complete = _measure(os.fsencode(candidate))
            if complete and size >= _LEAST_BYTES:
                return candidate
    return library


def _measure(root: bytes) -> tuple[int, bool]:
    """Size of what is below a directory; not complete if it is too much for a first look."""
    size = files = 0
    for directory, _, names in os.walk(root):
        for name in names:
            files += 1
            try:
                size += os.lstat(os.path.join(directory, name)).st_size
            except OSError:
                continue
        if size > _MOST_BYTES or files > _MOST_FILES:
            return size, False
    return size, True


def _require_space(source: bytes, workshop: Path) -> None:
    """Say at once that it will not fit, rather than when the disk is full."""
    size, complete = _measure(source) if os.path.isdir(source) else (os.lstat(source).st_size, True)
    free = shutil.disk_usage(workshop).free
    if 2 * size > free:
        more = "" if complete else "more than "
        raise NoSpace(
            f"'{path_text(source)}' has {more}{format_size(size)}, and a pool and a restored copy "
            f"of it may not fit into the {format_size(free)} that are free in {workshop.parent}",
            "name a smaller PATH, or set TMPDIR to a directory with more room",
        )


def _is_left_out(directory: bytes) -> bool:
    """Whether the marks say that what is in a directory is not worth a backup."""
    if os.path.lexists(os.path.join(directory, b".nobackup")):
        return True
    try:
        with open(os.path.join(directory, b"CACHEDIR.TAG"), "rb") as tag:
            return tag.read(len(_CACHE_TAG)) == _CACHE_TAG
    except OSError:
        return False


def _tell(screen: Screen, outcome: Outcome, kept: Path | None, home: Path) -> None:
    if screen.as_json:
        screen.json(_object(outcome, kept, home))
        return
    first, second, comparison = outcome.first, outcome.second, outcome.comparison
    for one in comparison.differences:
        screen.say(f"  different: {printable(path_text(one.path) or '.')}: {one.words}")
    tell_findings(
        screen,
        describe.finding_lines([*first.image.findings, *outcome.restored.findings]),
        outcome.findings,
        "findings on single files",
    )
    size, new, kept_bytes = (
        first.number(name) for name in ("bytes_found", "bytes_new", "bytes_stored")
    )
    compared = (
        f"{format_count(comparison.entries)} names, {format_count(comparison.files)} files, "
        f"{format_size(comparison.bytes_compared)} in {format_duration(outcome.compare_s)}"
    )
    verdict = "identical" if outcome.identical else f"{comparison.differences_total:,} DIFFERENCES"
    owners = "owners, " if os.geteuid() == 0 else ""
    facts = [
        ("files", f"{format_count(first.number('files'))}, {format_size(size)}"),
        ("first backup", _speed(first.elapsed_s, size)),
        ("  new data", f"{format_size(new)} ({format_ratio(size, new)} by deduplication)"),
        ("  in the pool", f"{format_size(kept_bytes)} ({format_ratio(size, kept_bytes)} in all)"),
        ("restore", _speed(outcome.restore_s, outcome.restored.bytes)),
        ("  read back", f"{format_count(outcome.restored.verified_files)} files, as in the image"),
        ("comparison", compared),
        ("  verdict", f"{verdict} (bytes, modes, {owners}times, links, xattrs)"),
    ]
    if comparison.changed_meanwhile:
        facts.append(("  meanwhile", f"{comparison.changed_meanwhile:,} changed at the source"))
    if comparison.skipped:
        facts.append(("  left out", f"{comparison.skipped:,} names with findings or marks"))
    facts += [
        ("second backup", _speed(second.elapsed_s, second.number("bytes_found"))),
        ("  new data", format_size(second.number("bytes_new"))),
        ("  unchanged", f"{format_count(second.number('files_unchanged'))} files not read again"),
    ]
    screen.facts(facts)
    if kept is not None:
        screen.say(f"kept: {kept}; look around with HOLDFAST_HOME={home} holdfast images")
    elif os.environ.get("HOLDFAST_HOME"):
        screen.say("next: holdfast images; holdfast ls latest; holdfast find NAME")
    else:
        screen.say("next: 'holdfast init' makes a site that stays, 'holdfast backup PATH' fills it")


def _speed(elapsed_s: float, size_bytes: int) -> str:
    return f"{format_duration(elapsed_s)}, {format_rate(size_bytes / max(elapsed_s, 1e-3))}"


def _object(outcome: Outcome, kept: Path | None, home: Path) -> dict[str, object]:
    comparison = outcome.comparison
    return {
        **path_json(outcome.path),
        "home": str(home) if kept or os.environ.get("HOLDFAST_HOME") else None,
        "identical": outcome.identical,
        "findings_total": outcome.findings,
        "first_backup": {
            **describe.image_json(outcome.first.image),
            "elapsed_s": round(outcome.first.elapsed_s, 3),
        },
        "restore": {
            "files": outcome.restored.files,
            "bytes": outcome.restored.bytes,
            "verified_files": outcome.restored.verified_files,
            "elapsed_s": round(outcome.restore_s, 3),
        },
        "comparison": {
            "entries": comparison.entries,
            "files": comparison.files,
            "bytes": comparison.bytes_compared,
            "skipped": comparison.skipped,
            "changed_meanwhile": comparison.changed_meanwhile,
            "differences_total": comparison.differences_total,
            "differences": [
                {**path_json(one.path), "words": one.words} for one in comparison.differences
            ],
            "elapsed_s": round(outcome.compare_s, 3),
        },
        "second_backup": {
            **describe.image_json(outcome.second.image),
            "elapsed_s": round(outcome.second.elapsed_s, 3),
        },
    }
