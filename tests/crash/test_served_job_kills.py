"""Whoever serves a site is killed before every step of its jobs, one after the other.

The steps are those that a first run makes, as `tests.kit.dying_master` finds them: all that is to
last of a backup from its schedule on, of the expiry of images and of keeping the catalog. The next
process takes up what the one before left, and is killed at the next step. Then, with the engine's
own pool, at random moments: two hundred of them, now and then, by
``HOLDFAST_TEST_KILLS=200 pytest tests/crash/test_served_job_kills.py -k random``, some minutes.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.base import labels
from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName
from holdfast.control.database import Database
from holdfast.control.jobs import Job, JobBook, JobKind, JobState, NewJob, Outcome
from holdfast.control.policies import PolicyBook, Selection
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Schedule
from holdfast.site.master import STORAGE_UNIT
from holdfast.site.secrets import SecretSource
from holdfast.site.site import Site
from holdfast.site.steward import EXPIRE, PROTECT
from holdfast.wire.messages import SiteWork
from tests.kit import quick_disk
from tests.kit.command import Command
from tests.kit.policies import policy
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.base.ids import ImageId
    from holdfast.control.policies import Policy

KILLS = int(os.environ.get("HOLDFAST_TEST_KILLS", "10"))
"""At how many random moments."""

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
KEPT = 1
EXPECTED = {
    "commit of control.catalog.catalog.Catalog.record_image",
    "commit of control.catalog.indexer.Indexer._feed",
    "commit of control.catalog.indexer.Indexer.expire",
    "commit of control.dispatch.histories.HistoryBook.handled",
    "commit of control.jobs.book.JobBook.end",
    "commit of control.jobs.book.JobBook.enqueue",
    "commit of control.jobs.book.JobBook.grant",
    "delete from images",
    "delete from jobs",
    "delete from packs",
    "put into images",
    "put into index",
    "put into jobs",
    "put into packs",
    "remove by control.inbox.Inbox.hand_over",
    "rename by control.inbox.Inbox.leave",
}
"""These are among the steps found: else the test would look at nothing any more."""

ONCE = {
    "commit of site.chores.Chores._note_kept_house",
    "commit of site.chores.Chores._protect",
    "commit of site.service.Service._new_dispatcher",
    "rename by site.places.note_directories",
}
"""What comes when a site is served for the first time, and then only after hours."""

NEW_SOURCE = "control.catalog.on_sqlite.source_file"
"""Steps with this in their name come when a source is backed up for the first time."""


@dataclass
class Master:
    """Processes that serve one site, one at a time."""

    site: Command
    process: subprocess.Popen[bytes]
    steps: dict[str, None] = field(default_factory=dict)
    pid: int = 0
    _unread: bytes = b""

    def begin(self, kill_at: str | None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(kill_at).encode() + b"\n")
        self.process.stdin.flush()
        while not self.pid:
            assert self.hear(0.05) is None

    def signal(self, number: signal.Signals) -> None:
        # To 0 it would go to the tests themselves.
        assert self.pid
        os.kill(self.pid, number)

    def hear(self, patience_s: float) -> int | None:
        """Take in what is told for a while; with which status the one that serves has ended."""
        assert self.process.stdout is not None
        end = time.monotonic() + patience_s
        while (left_s := end - time.monotonic()) > 0:
            if not select.select([self.process.stdout], [], [], left_s)[0]:
                break
            self._unread += os.read(self.process.stdout.fileno(), 1 << 16)
            *lines, self._unread = self._unread.split(b"\n")
            for told in map(json.loads, lines):
                self.pid = told.get("began", self.pid)
                if "step" in told:
                    self.steps[told["step"]] = None
                if "ended" in told:
                    self.pid = 0
                    status: int = told["ended"]
                    return status
        return None


@contextmanager
def masters(site: Command) -> Iterator[Master]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.dying_master"],
        cwd=ROOT,
        # Each kill is a try of what was at work: by default three are enough to give it up.
        env=site.environment() | {"HOLDFAST_JOBS_ATTEMPTS": "1000"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    made = Master(site, process)
    try:
        yield made
    finally:
        if made.pid:
            made.signal(signal.SIGKILL)
        process.kill()
        process.communicate()


@dataclass
class Book:
    """What is told of the site from outside: its control database, and the tree it backs up."""

    database: Database
    tree: Path

    @property
    def jobs(self) -> JobBook:
        return JobBook(self.database, SystemClock())

    def protect(self, made: Policy) -> None:
        book = PolicyBook(self.database, SystemClock())
        book.apply(book.plan([made], prune=True), "a test")

    def ask(self) -> None:
        """Give the next ones something to do: a file that is new, and images that may go."""
        (self.tree / "changing").write_bytes(os.urandom(200_000))
        verbs = {JobKind.EXPIRE: EXPIRE, JobKind.CATALOG_BACKUP: PROTECT}
        asked = {one.kind for one in self.unended()}
        new = [
            NewJob(kind=kind, work=SiteWork(verb).to_json(), storage_unit=STORAGE_UNIT)
            for kind, verb in verbs.items()
            if kind not in asked
        ]
        self.jobs.enqueue(new)

    def newest_image(self, since: datetime) -> ImageId | None:
        """The one of the tree that was made last, by a backup that began after a moment."""
        found = [
            (one.started_at, one.image_id)
            for one in self.jobs.each()
            if one.source is not None
            and one.source.endswith(f":{self.tree}")
            and one.outcome is Outcome.COMPLETED
            and one.started_at is not None
            and one.started_at > since
        ]
        return max(found)[1] if found else None

    def unended(self) -> list[Job]:
        return [one for one in self.jobs.each() if one.state is not JobState.ENDED]


def often(tree: Path) -> Policy:
    schedule = Schedule("often", BackupKind.CONTINUOUS, every=timedelta(seconds=1))
    return policy(
        clients=(ClientName(os.uname().nodename),),
        selections=(Selection("tree", (str(tree),)),),
        schedules=(schedule,),
        retention=Rules(last=KEPT),
    )


def found_steps(master: Master, book: Book) -> dict[str, bool]:
    """The steps of some backups, of an expiry that lets images go, and of keeping the catalog.

    Of each it is told whether it came only when the site was told to stop.
    """
    master.begin("")
    end = time.monotonic() + PATIENCE_S
    met = -1
    while time.monotonic() < end and not (
        set(master.steps) >= EXPECTED and met == len(master.steps)
    ):
        met = len(master.steps)
        book.ask()
        assert master.hear(1.0) is None
    by_a_stop = len(master.steps)
    master.signal(signal.SIGTERM)
    assert master.hear(PATIENCE_S) == 0
    return {step: number >= by_a_stop for number, step in enumerate(master.steps)}


@pytest.mark.slow
def test_a_master_killed_before_every_step_loses_duplicates_and_sticks_nothing(
    tmp_path: Path,
) -> None:
    with new_site() as (site, book), masters(site) as master:
        tree = book.tree
        steps = found_steps(master, book)
        assert steps.keys() >= EXPECTED, "\n".join(steps)
        for number, (step, by_a_stop) in enumerate(steps.items()):
            if step in ONCE:
                continue
            if NEW_SOURCE in step:
                another = tree / f"another {number}"
                another.mkdir()
                book.protect(often(another))
            book.ask()
            master.begin(step)
            assert killed(master, book, step, by_a_stop=by_a_stop) == -signal.SIGKILL, step
            if NEW_SOURCE in step:
                book.protect(often(tree))
        finish(master, book)
        check(site, book, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("step", sorted(ONCE))
def test_a_master_killed_when_it_first_begins_begins_again(step: str, tmp_path: Path) -> None:
    with new_site() as (site, book), masters(site) as master:
        (book.tree / "changing").write_text("something")
        master.begin(step)
        assert killed(master, book, step, by_a_stop=False) == -signal.SIGKILL
        finish(master, book)
        check(site, book, tmp_path)


@pytest.mark.slow
def test_a_master_killed_at_random_moments_goes_on(tmp_path: Path) -> None:
    dice = random.Random(7)
    with new_site() as (site, book), masters(site) as master:
        for _ in range(KILLS):
            book.ask()
            master.begin(None)
            assert master.hear(dice.uniform(0.1, 2.5)) is None
            master.signal(signal.SIGKILL)
            assert master.hear(PATIENCE_S) == -signal.SIGKILL
        assert sum(one.attempt for one in book.jobs.each()) > KILLS // 4
        finish(master, book)
        check(site, book, tmp_path)


@contextmanager
def new_site() -> Iterator[tuple[Command, Book]]:
    """A site that backs a tree up every second, and was never served."""
    with quick_disk.directory() as place:
        site = Command(place / "home")
        site("init").assert_ok()
        tree = place / "tree"
        tree.mkdir()
        database = Database(site.home / "catalog" / "catalog.db")
        database.migrate()
        book = Book(database, tree)
        book.protect(often(tree))
        yield site, book
        database.close()


def killed(master: Master, book: Book, step: str, *, by_a_stop: bool) -> int | None:
    """With which status it ends that is to be killed; some steps are those of an orderly stop."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        ended = master.hear(1.0)
        if ended is not None:
            return ended
        book.ask()
        if by_a_stop:
            # What is stopped has to be at work just then.
            master.signal(signal.SIGTERM)
            ended = master.hear(PATIENCE_S)
            if ended != 0:
                return ended
            master.begin(step)
    return None


def finish(master: Master, book: Book) -> None:
    """What is left comes to its end by itself: nothing may be stuck."""
    since = datetime.now(UTC)
    master.begin("")
    end = time.monotonic() + PATIENCE_S
    while not book.newest_image(since):
        assert master.hear(0.2) is None
        assert time.monotonic() < end
    book.protect(replace(often(book.tree), active=False))
    while book.unended():
        assert master.hear(0.2) is None
        assert time.monotonic() < end, book.unended()
    master.signal(signal.SIGTERM)
    assert master.hear(PATIENCE_S) == 0


def check(site: Command, book: Book, tmp_path: Path) -> None:
    jobs = list(book.jobs.each())
    assert {one.outcome for one in jobs} == {Outcome.COMPLETED}, jobs
    backups = [one for one in jobs if one.kind is JobKind.BACKUP]
    seen = Counter((one.policy, one.schedule, one.source, one.due_at) for one in backups)
    assert max(seen.values()) == 1
    # Each has made one image, which is there unless it was let go.
    made = Counter(one.image_id for one in backups)
    assert max(made.values()) == 1
    assert None not in made
    with Site.open(site.home, SecretSource(), SystemClock()) as opened:
        in_pool = {one.id for one in opened.pool.images() if labels.JOB in one.labels}
        assert set(opened.catalog.image_ids()) == in_pool
    assert in_pool <= made.keys()
    assert in_pool
    assert list((site.home / "catalog" / "inbox").iterdir()) == []
    # What was cut off leaves nothing that a collection does not take away.
    site("gc").assert_ok()
    site("pool", "check").assert_ok()
    site("verify", "--read-data").assert_ok()
    newest = book.newest_image(datetime.min.replace(tzinfo=UTC))
    assert newest is not None
    site("restore", newest, "--to", tmp_path / "back", "--verify").assert_ok()
    assert_same_tree(book.tree, os.fsencode(tmp_path / "back") + os.fsencode(book.tree))
