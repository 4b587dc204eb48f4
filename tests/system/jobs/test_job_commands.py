"""Jobs, activity and events by the command line, with and without a site that is served."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, JobId, PolicyName, SourceName
from holdfast.control.database import Database
from holdfast.control.jobs import (
    JobBook,
    JobError,
    JobKind,
    JobState,
    NewJob,
    Outcome,
    Remark,
    Result,
    Severity,
)
from holdfast.control.jobs.events import SORTS as EVENT_SORTS
from holdfast.control.jobs.export import Format
from holdfast.control.jobs.lists import SORTS
from holdfast.faces.cli import downloads, events, job_words
from tests.kit.command import Command
from tests.system.command_line.test_command_line import on_terminal

REMARKS = [
    Remark(Severity.ERROR, "no permission", "may not", matters=True, path=b"/srv/\xff\x1b[31m"),
    Remark(Severity.WARNING, "vanished between scan and read", "it went", path=b"/srv/a"),
]


@contextmanager
def book_of(site: Command) -> Iterator[JobBook]:
    database = Database(site.home / "catalog" / "catalog.db")
    yield JobBook(database, SystemClock())
    database.close()


def backup(path: str, **more: Any) -> NewJob:
    given: dict[str, Any] = {
        "kind": JobKind.BACKUP,
        "policy": PolicyName("a-policy-with-a-name-that-is-long"),
        "client": ClientName("web1.example.org"),
        "source": SourceName(f"web1.example.org:{path}"),
        "backup_kind": "differential",
    }
    return NewJob(**given | more)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a family, an active job, one that failed and some that wait."""
    site = Command(tmp_path_factory.mktemp("jobs") / "home")
    site("init").assert_ok()
    with book_of(site) as book:
        parts = tuple(backup(path) for path in ("/srv", "/home"))
        family, active, failed, *waiting = (
            one.id
            for one in book.enqueue(
                [
                    backup("", source=None, client=None, parts=parts),
                    backup("/a/rather/long/path/to/something"),
                    backup("/etc"),
                    *(backup(f"/waits/{number}") for number in range(7)),
                ]
            )
        )
        assert (family, active, failed) == (1, 2, 3)
        ready = {one.source: one.id for one in book.ready()}
        counters = {"files": 123_456, "online_bytes": 30 << 30, "transmitted_bytes": 5 << 20}
        done = Result(Outcome.COMPLETED_WITH_ERRORS, counters=counters)
        error = JobError("no-permission", "may not read /etc", "run it as root")
        for source, result in (
            ("web1.example.org:/srv", done),
            ("web1.example.org:/home", Result(Outcome.COMPLETED)),
            ("web1.example.org:/etc", Result(Outcome.FAILED, error=error)),
        ):
            (granted,) = book.grant([ready[SourceName(source)]])
            remarks = REMARKS if result is done else []
            book.end(granted.job.id, granted.job.fence, result, remarks, left_out=len(remarks))
        book.grant([active])
        words = "storage unit 'default' has 2 of 2 slots in use: jobs 2, 12"
        book.waits(dict.fromkeys(waiting, ("storage unit 'default'", words)))
    return site.home


@pytest.fixture
def filled(template: Path, tmp_path: Path) -> Command:
    """A site of its own that is as `template`."""
    shutil.copytree(template, tmp_path / "home")
    return Command(tmp_path / "home")


def test_the_word_alone_lists(site: Command) -> None:
    for word in ("jobs", "audit"):
        assert site(word).assert_ok().text == site(word, "list").assert_ok().text
        rows = site(word, "list", "--limit", "1", "--json").assert_ok().text
        assert site(word, "--limit", "1", "--json").assert_ok().text == rows
        assert "Commands:" in site(word, "--help").assert_ok().text
        site(word, "nothing").assert_failed(64, "No such command 'nothing'")


def test_jobs_are_listed_with_what_they_wait_for(filled: Command) -> None:
    listed = filled("jobs", "list").assert_ok()
    titles, *rows = listed.text.splitlines()
    assert titles.split() == ["job", "status", "policy", "source", "start", "took"]
    assert len(rows) == 12
    assert rows[-1].split()[:4] == ["1", "errors", "a-policy-with-a-name-that-is-long", "2"]
    assert listed.err == (
        "jobs 4, 5, 6, 7, 8 and 2 more wait for: "
        "storage unit 'default' has 2 of 2 slots in use: jobs 2, 12\n"
    )
    open_ones = filled("jobs", "list", "--open", "--json").assert_ok().json_lines()
    assert {one["state"] for one in open_ones} == {"queued", "active"}
    failed = filled("jobs", "list", "--outcome", "failed", "--since", "1d", "--json").json_lines()
    assert [one["id"] for one in failed] == [3]
    parts = filled("jobs", "list", "--parts-of", "1", "--sort", "source", "--json").json_lines()
    assert [one["source"].partition(":")[2] for one in parts] == ["/srv", "/home"]
    assert filled("jobs", "list", "--policy", "none").assert_ok().err == "no such jobs\n"


@pytest.mark.parametrize(
    "words",
    [("jobs", "list"), ("activity",), ("activity", "--sort", "files"), ("jobs", "list", "--open")],
)
def test_tables_fit_on_a_terminal(filled: Command, words: tuple[str, ...]) -> None:
    status, out, _ = on_terminal(filled, *words, columns=80)
    lines = out.replace("\r", "").splitlines()
    assert status == 0
    assert len(lines) > 3
    assert max(map(len, lines)) <= 80


def test_events_fit_on_a_terminal_and_can_not_change_it(filled: Command) -> None:
    part = part_of(filled)
    status, out, err = on_terminal(filled, "events", str(part), columns=80)
    lines = out.replace("\r", "").splitlines()
    assert status == 0
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("!  error     no permission")
    assert "\\xff\\x1b[31m" in out
    assert "\x1b[31m" not in out
    assert "2 more events were not kept" in err


def part_of(site: Command) -> int:
    rows = site("jobs", "list", "--parts-of", "1", "--outcome", "completed-with-errors", "--json")
    found: int = rows.json()["id"]
    return found


def facts(text: str) -> dict[str, str]:
    """The names and values that a command wrote, up to an empty line."""
    lines = text.partition("\n\n")[0].splitlines()
    width = max(line.find("  ") for line in lines)
    return {line[:width].strip(): line[width:].strip() for line in lines}


def test_one_job_is_shown_with_all_there_is(filled: Command) -> None:
    shown = facts(filled("jobs", "show", "3").assert_ok().text)
    assert (shown["status"], shown["kind"]) == ("failed", "differential backup")
    assert (shown["error"], shown["hint"]) == ("may not read /etc", "run it as root")
    family = filled("jobs", "show", "1").assert_ok().text
    assert facts(family)["status"] == "completed with errors"
    assert family.splitlines()[-2].split()[1:] == ["errors", "web1.example.org:/srv"]
    waiting = facts(filled("jobs", "show", "4").assert_ok().text)
    assert waiting["waits for"].startswith("storage unit 'default' has 2 of 2 slots in use")
    part = part_of(filled)
    shown = facts(filled("jobs", "show", str(part)).assert_ok().text)
    assert shown["events"] == f"2 (and 2 more that were not kept): holdfast events {part}"
    assert shown["online"] == "30.0 GiB"


def test_jobs_are_stopped_and_begun_again(filled: Command) -> None:
    suspended = filled("jobs", "suspend", "4", "5").assert_ok().text
    assert suspended == "job 4: suspended\njob 5: suspended\n"
    assert filled("jobs", "resume", "4").assert_ok().text == "job 4: queued\n"
    assert filled("jobs", "cancel", "5").assert_ok().text == "job 5: cancelled\n"
    assert filled("jobs", "cancel", "2").assert_ok().text == "job 2: its worker is told to stop\n"
    again = filled("jobs", "restart", "3").assert_ok().text
    assert again.startswith("job 3 runs again as job ")
    assert filled("jobs", "cancel", "6", "--json").assert_ok().json()["outcome"] == "cancelled"
    filled("jobs", "cancel", "3").assert_failed(2, "job 3 has ended (failed)", "jobs restart 3")
    filled("jobs", "restart", "4").assert_failed(2, "job 4 has not ended", "jobs cancel 4")
    filled("jobs", "resume", "4").assert_failed(2, "job 4 is not suspended")
    filled("jobs", "show", "999").assert_failed(2, "no job 999", "holdfast jobs list")
    filled("jobs", "show", "x").assert_failed(64, "'x'")
    filled("jobs", "cancel").assert_failed(64, "JOB")
    told = filled("audit", "list", "--what", "cancel_job", "--json").assert_ok().json_lines()
    assert [one["outcome"] for one in told] == ["done", "done", "done", "refused"]


def test_a_job_is_watched_until_it_has_ended(filled: Command) -> None:
    assert filled("jobs", "watch", "1").status == 1
    assert filled("jobs", "watch", "3").status == 2
    watching = filled.start("jobs", "watch", "4", "--every", "0.1", "--json")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["state"] == "queued"
    with book_of(filled) as book:
        (granted,) = book.grant([JobId(4)])
        assert json.loads(watching.stdout.readline())["state"] == "active"
        book.end(granted.job.id, granted.job.fence, Result(Outcome.COMPLETED))
    assert json.loads(watching.stdout.readline())["outcome"] == "completed"
    assert watching.wait(60) == 0
    watching.communicate()
    ended = filled("jobs", "watch", "4").assert_ok()
    assert facts(ended.text)["status"] == "completed"


def test_the_activity_log_is_what_log_1_says(filled: Command) -> None:
    titles, *rows = filled("activity").assert_ok().text.splitlines()
    assert titles.split() == [
        "start", "took", "files", "online", "transmitted", "status", "set",
    ]  # fmt: skip
    assert len(rows) == 4
    (row,) = (one for one in rows if "errors" in one)
    assert row.split()[-7:] == [
        "123,456", "30.0", "GiB", "5.00", "MiB", "errors", "web1.example.org:/srv",
    ]  # fmt: skip
    found = filled("activity", "--sort", "online_bytes", "--limit", "1", "--json").json()
    assert (found["source"], found["online_bytes"]) == ("web1.example.org:/srv", 30 << 30)
    by_date = filled("activity", "--until", "2020-01-01").assert_ok()
    assert (by_date.text, by_date.err) == ("", "no such activity\n")
    filled("activity", "--since", "2030-01-02", "--until", "2029-12-31").assert_failed(64, "before")
    filled("activity", "--since", "tomorrow").assert_failed(64, "'tomorrow' is no date")


def test_lists_are_written_as_text_csv_and_workbooks(filled: Command, tmp_path: Path) -> None:
    text = filled("activity", "--format", "text", "--limit", "1").assert_ok().text
    assert len(text.splitlines()) == 5
    table = list(csv.DictReader(io.StringIO(filled("activity", "--format", "csv").text)))
    assert {one["online_bytes"] for one in table} == {"0", str(30 << 30)}
    book = tmp_path / "activity.xlsx"
    assert filled("activity", "--to", book).assert_ok().err == f"written to {book}\n"
    sheet = openpyxl.load_workbook(book).worksheets[0]
    assert sheet.max_row == 5
    assert isinstance(sheet["B2"].value, datetime)
    assert os.stat(book).st_mode & 0o777 == 0o600
    filled("activity", "--to", book).assert_failed(2, "is there already")
    filled("activity", "--to", tmp_path / "x.pdf").assert_failed(64, "--format")
    filled("activity", "--format", "csv", "--zone", "Nowhere").assert_failed(2, "no time zone")
    part = part_of(filled)
    to = tmp_path / "events.csv"
    filled("events", str(part), "--to", to).assert_ok()
    first, second = csv.DictReader(io.StringIO(to.read_text()))
    assert (first["cause"], first["path"]) == ("no permission", "/srv/\\xff\\x1b[31m")
    assert (second["matters"], second["severity"]) == ("no", "warning")


def test_events_are_filtered_and_keep_their_paths(filled: Command) -> None:
    part = str(part_of(filled))
    one = filled("events", part, "--matters", "--json").assert_ok().json()
    assert one["path"].encode("utf-8", "surrogateescape") == b"/srv/\xff\x1b[31m"
    assert one["path_base64"] == "L3Nydi//G1szMW0="
    assert "path_hex" not in one
    by_cause = filled("events", part, "--cause", "vanished between scan and read", "--json")
    assert by_cause.json()["severity"] == "warning"
    order = [one["seq"] for one in filled("events", part, "--reverse", "--json").json_lines()]
    assert order == [2, 1]
    assert filled("events", "3").assert_ok().text.splitlines()[1].split()[:3] == [
        "!", "error", "failed",
    ]  # fmt: skip
    assert filled("events", "2").assert_ok().err == "job 2 has no such events\n"


def test_the_command_line_knows_what_the_control_floor_knows() -> None:
    assert set(job_words.STATES) == set(JobState)
    assert set(job_words.OUTCOMES) == set(Outcome)
    assert set(job_words.KINDS) == set(JobKind)
    assert list(job_words.SORTS) == list(SORTS)
    assert list(job_words.EVENT_SORTS) == list(EVENT_SORTS)
    assert set(events.SEVERITIES) == set(Severity)
    assert set(downloads.FORMATS) == set(Format)


def test_moments_are_ours_in_text_and_utc_in_csv(filled: Command) -> None:
    in_tokyo = Command(filled.home, {"TZ": "Asia/Tokyo"})
    row = next(csv.DictReader(io.StringIO(in_tokyo("activity", "--format", "csv").text)))
    utc = datetime.fromisoformat(row["started_at"])
    assert utc.tzinfo is UTC
    shown = in_tokyo("activity", "--format", "text").assert_ok().text
    hour = f"{(utc.hour + 9) % 24:02d}:{utc.minute:02d}:{utc.second:02d}"
    assert hour in shown
