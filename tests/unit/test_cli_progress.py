"""How far a verb is, from its counters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.faces.cli import progress
from holdfast.faces.cli.screen import Screen


def counters(**numbers: int) -> Any:
    names = ("files", "bytes_found", "bytes_read", "bytes_online", "bytes_total")
    written = SimpleNamespace(name="write", bytes=numbers.pop("written", 0))
    return SimpleNamespace(**dict.fromkeys(names, 0) | numbers, stages=[written])


def test_unchanged_files_are_behind_us_without_being_read() -> None:
    meter = progress.Meter("backup")
    seen = counters(bytes_found=100, bytes_online=30, bytes_read=10)
    assert meter.done_bytes(seen) == 80


def test_a_restore_is_measured_by_what_it_wrote() -> None:
    assert progress.Meter("restore").done_bytes(counters(written=7, bytes_read=99)) == 7


def test_off_a_terminal_a_line_is_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("holdfast.faces.cli.progress.time.monotonic", lambda: now[0])
    seen = counters(files=1234, bytes_read=50 << 20, bytes_online=1, bytes_total=100 << 20)
    with progress.reporting(Screen(), "verify") as (meter, report):
        for now[0] in (1.0, 9.9, 10.0, 12.0, 19.0):
            report(seen)
    assert meter.last is seen
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["verify: 1,234 files, 50.0 MiB, 5.00 MiB/s, 50 %, 10.0 s left"]


def test_a_count_is_not_told_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.counting(cast("Any", Screen()), "rows") as report:
        report(5)
    assert capsys.readouterr().err == ""


def test_a_bar_is_drawn_for_what_takes_a_while_and_not_for_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    now = [0.0]
    monkeypatch.setattr("holdfast.faces.cli.progress.time.monotonic", lambda: now[0])
    seen = counters(files=3, bytes_read=1 << 20)
    with progress.reporting(Screen(), "verify") as (_, report):
        report(seen)
    assert capsys.readouterr().err == ""
    with progress.reporting(Screen(), "verify") as (_, report):
        now[0] = 1.0
        report(seen)
    drawn = capsys.readouterr().err
    assert "verify" in drawn
    assert "3 files, 1.00 MiB" in drawn
