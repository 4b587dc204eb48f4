"""The activity log and the event log as text, CSV and workbooks."""

from __future__ import annotations

import csv
import io
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import openpyxl
import pytest

from holdfast.base.errors import Unsupported
from holdfast.base.ids import ClientName, JobId, PolicyName, SourceName
from holdfast.control.dispatch import hearing
from holdfast.control.jobs import Event, Job, JobKind, JobState, Outcome, Severity, causes, export
from holdfast.control.jobs.activity import ACTIVITY, EVENTS
from holdfast.control.jobs.export import Format
from holdfast.control.jobs.job import counted
from holdfast.wire.messages import WorkEnded, WorkEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NOW = datetime(2026, 3, 1, 22, 0, 5, tzinfo=UTC)
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1", " =1", "\t=1"]


def job(number: int = 7, source: str = "web1:/srv", **more: Any) -> Job:
    given: dict[str, Any] = {
        "id": JobId(number),
        "kind": JobKind.BACKUP,
        "priority": 50,
        "queued_at": NOW,
        "policy": PolicyName("nightly"),
        "client": ClientName("web1"),
        "source": SourceName(source),
        "state": JobState.ENDED,
        "outcome": Outcome.COMPLETED_WITH_ERRORS,
        "started_at": NOW,
        "ended_at": NOW + timedelta(hours=25, minutes=1, seconds=2),
        "counters": counted(
            {"files": 1234, "online_bytes": 30 << 30, "transmitted_bytes": 5 << 20}
        ),
    }
    return Job(**given | more)


def event(path: bytes | None = b"/srv/\xff a", message: str = "it went") -> Event:
    return Event(JobId(7), 1, NOW, Severity.WARNING, path, "vanished", message, matters=False)


def written(form: Format, rows: Iterable[Any], columns: Any = ACTIVITY, **more: Any) -> bytes:
    file = io.BytesIO()
    export.write(file, form, columns, rows, **more)
    return file.getvalue()


def sheets(data: bytes) -> list[Any]:
    return list(openpyxl.load_workbook(io.BytesIO(data)).worksheets)


def cells(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_text_has_a_line_for_each_row_in_columns() -> None:
    lines = written(Format.TEXT, [job(), job(8, started_at=None, ended_at=None)]).decode()
    titles, first, second = lines.splitlines()
    for one in ("job", "start", "end", "duration", "files", "online", "transmitted", "status"):
        assert one in titles
    assert first.split("  ")[0].strip() == ""
    assert "2026-03-01 22:00:05" in first
    assert " 25:01:02 " in first
    assert "30.0 GiB" in first
    assert "5.00 MiB" in first
    assert "1,234" in first
    assert "completed with errors" in first
    assert first.index("nightly") == second.index("nightly") == titles.index("policy")
    assert "-" in second


def test_csv_has_plain_numbers_and_moments() -> None:
    titles, row = cells(written(Format.CSV, [job()]))
    found = dict(zip(titles, row, strict=True))
    assert titles == [one.name for one in ACTIVITY]
    assert found["id"] == "7"
    assert found["started_at"] == "2026-03-01T22:00:05Z"
    assert found["duration"] == "90062.0"
    assert found["online_bytes"] == str(30 << 30)
    assert found["status"] == "completed with errors"
    assert found["source"] == "web1:/srv"


def test_a_workbook_has_numbers_dates_and_durations_as_such() -> None:
    (sheet,) = sheets(written(Format.EXCEL, [job()], zone=ZoneInfo("Asia/Tokyo")))
    titles = [cell.value for cell in sheet[1]]
    assert titles[:4] == ["job", "start (Asia/Tokyo)", "end (Asia/Tokyo)", "duration"]
    row = dict(zip((one.name for one in ACTIVITY), sheet[2], strict=True))
    assert row["id"].value == 7
    assert row["started_at"].value == datetime(2026, 3, 2, 7, 0, 5)  # noqa: DTZ001 - as Excel
    assert row["started_at"].is_date
    assert row["duration"].value == timedelta(hours=25, minutes=1, seconds=2)
    assert row["duration"].number_format == "[h]:mm:ss"
    assert row["online_bytes"].value == 30 << 30
    assert row["online_bytes"].data_type == "n"
    assert row["status"].value == "completed with errors"
    assert sheet.freeze_panes == "A2"


@pytest.mark.parametrize("text", FORMULAS)
def test_nothing_that_looks_like_a_formula_is_one(text: str) -> None:
    _, row = cells(written(Format.CSV, [event(message=text)], EVENTS))
    assert row[-1].startswith("'") or row[-1].startswith("\\")
    raw = written(Format.CSV, [event(message='x",' + text)], EVENTS).decode()
    assert cells(raw.encode())[1][-1] == 'x",' + text.replace("\t", "\\t")
    (sheet,) = sheets(written(Format.EXCEL, [event(message=text)], EVENTS))
    cell = sheet[2][-1]
    assert cell.data_type == "s"
    assert cell.value == text.replace("\t", "\\t")
    assert cell.quotePrefix is (not text.startswith("\t"))


def test_negative_numbers_are_numbers_and_no_formulas() -> None:
    strange = job(counters=counted({"files": -5}))
    _, row = cells(written(Format.CSV, [strange]))
    assert "-5" in row


@pytest.mark.parametrize("form", list(Format))
def test_any_name_of_a_file_is_written_on_one_line(form: Format) -> None:
    path = b'/a\n"b"\r\x00\xff\x1b[31m,;\t' + "\u202e\U0001f600".encode()
    data = written(form, [event(path, "m\udcff\x0b")], EVENTS)
    shown = '/a\\n"b"\\r\\x00\\xff\\x1b[31m,;\\t\\u202e\U0001f600'
    if form is Format.EXCEL:
        (sheet,) = sheets(data)
        assert sheet[2][-2].value == shown
        assert sheet[2][-1].value == "m\\udcff\\x0b"
        return
    assert data.count(b"\n") == 2
    assert (cells(data)[1][-2] if form is Format.CSV else data.decode()).find(shown) >= 0


def test_no_rows_are_a_table_with_titles() -> None:
    assert written(Format.TEXT, []).decode().split()[0] == "job"
    assert len(cells(written(Format.CSV, []))) == 1
    (sheet,) = sheets(written(Format.EXCEL, []))
    assert sheet.max_row == 1


def test_a_workbook_goes_on_in_another_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "ROWS_OF_A_SHEET", 4)
    found = sheets(written(Format.EXCEL, [job(number) for number in range(10)]))
    assert [sheet.max_row for sheet in found] == [5, 5, 3]
    assert [sheet[2][0].value for sheet in found] == [0, 4, 8]


def test_text_longer_than_a_cell_is_cut() -> None:
    (sheet,) = sheets(written(Format.EXCEL, [event(message="x" * 40_000)], EVENTS))
    assert len(sheet[2][-1].value) == 32_767


@pytest.mark.parametrize("form", list(Format))
def test_memory_does_not_grow_with_rows(form: Format) -> None:
    def rows(count: int) -> Iterator[Job]:
        return (job(number) for number in range(count))

    def peak_bytes(count: int) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in export.chunks(form, ACTIVITY, rows(count)):
            pass
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        peak_bytes(10)
        small, large = peak_bytes(300), peak_bytes(3000)
    finally:
        tracemalloc.stop()
    assert large < small + (256 << 10)


def test_without_openpyxl_a_workbook_is_refused_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(Unsupported, match="openpyxl"):
        written(Format.EXCEL, [job()])
    assert written(Format.CSV, [job()])


def test_causes_are_told_in_plain_words_with_whether_they_matter() -> None:
    gone = causes.remark("error", "vanished", "could not read it", b"/a")
    assert (gone.cause, gone.matters) == ("vanished between scan and read", False)
    denied = causes.remark("error", "no-permission", "may not", b"/a")
    assert (denied.cause, denied.matters) == ("no permission", True)
    assert causes.remark("warning", "disk-on-fire", "hot", None).cause == "disk on fire"
    assert causes.remark("error", "disk-on-fire", "hot", None).matters
    assert causes.remark("severe", "disk-on-fire", "hot", None).severity is Severity.ERROR


def test_what_a_worker_says_of_files_is_told_in_the_same_words() -> None:
    events = (WorkEvent("error", "vanished", "could not read it", b"/a"),)
    message = WorkEnded(1, 1, None, events, 3, {}, None)
    (told,) = hearing.remarks(message)
    assert told == causes.remark("error", "vanished", "could not read it", b"/a")
    assert hearing.left_out(message) == 2
