"""What the benchmark reports: tables, goals and pages that follow from what was measured."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import (
    catalog_files,
    disks,
    goals,
    page,
    plots,
    report,
    run,
    transfer_peers,
)


def measured(wall_s: float, engine_s: float | None = None) -> report.Measured:
    return report.Measured(
        wall_s, wall_s * 1.5, wall_s * 0.5, 80 << 20, engine_s, 50 << 20, 1 << 20
    )


def row(work: str, tool: str, *walls_s: float, engine_s: float | None = None) -> report.Row:
    return report.Row(work, tool, {at: measured(one, engine_s) for at, one in enumerate(walls_s)})


def rows() -> list[report.Row]:
    return [
        row("first", "holdfast", 2.0, 4.0, 3.0, engine_s=1.5),
        row("first", "restic", 4.0, 12.0, 6.0),
        row("restore", "holdfast", 1.0, engine_s=0.5),
        row("restore", "borg", 123.4),
    ]


def test_a_ratio_is_taken_round_by_round() -> None:
    ours, theirs = rows()[:2]
    # 4/2, 12/4 and 6/3; the medians alone would give 6/3 with no spread at all
    spread = report.ratio(theirs, ours, lambda one: one.wall_s)
    assert spread == report.Spread(2.0, 2.0, 3.0)


def test_rounds_that_only_one_tool_survived_give_no_ratio() -> None:
    ours = report.Row("first", "holdfast", {0: measured(1.0)})
    theirs = report.Row("first", "borg", {1: measured(1.0)})
    assert report.ratio(theirs, ours, lambda one: one.wall_s) is None
    assert "borg" in report.table("corpus", [ours, theirs])


def test_a_table_fits_eighty_columns_and_says_what_was_measured() -> None:
    text = report.table("source tree: 20,000 files, 164 MiB", rows())
    assert max(map(len, text.splitlines())) <= 80
    lines = [line.split() for line in text.splitlines()]
    assert ["first", "backup", "holdfast", "3.00", "(2.00-4.00)", "4.50", "80.0", "50.0"] in lines
    assert [
        "restic",
        "6.00",
        "(4.00-12.0)",
        "2.00x",
        "(2.00-3.00)",
        "9.00",
        "80.0",
        "50.0",
    ] in lines
    assert ["restore", "holdfast", "1.00", "(1.00-1.00)", "1.50", "80.0"] in lines
    assert "first backup 1.50, restore 0.50" in text


def test_even_long_times_fit_eighty_columns() -> None:
    slow = [row("again", "holdfast", 1000.0, 9000.0), row("again", "restic", 20000.0, 90000.0)]
    assert max(map(len, report.table("corpus", slow).splitlines())) <= 80


def test_a_report_comes_back_from_its_json() -> None:
    known = json.loads(json.dumps(report.summary(rows())))
    assert report.rows_of(known) == rows()
    assert known[1]["wall_s_ratio"] == {"median": 2.0, "least": 2.0, "most": 3.0}


def result(**more: object) -> dict[str, object]:
    return {
        "format": report.FORMAT,
        "mode": "quick",
        "machine": {
            "processor": "a processor",
            "cores": 2,
            "memory_gib": 4,
            "system": "Linux",
            "file_system": "ext4",
        },
        "tools": [],
        "missing": {"borg": "no compiler"},
        "corpora": [{"name": "small", "title": "a corpus", "rows": report.summary(rows())}],
        "failures": [{"corpus": "small", "words": "restic restored less"}],
        **more,
    }


def large_rows() -> list[report.Row]:
    return [
        row("first", "holdfast", 10.0),
        row("first", "restic", 21.0),
        row("first", "borg", 39.0),
        row("limit", "zstd -1 -T0", 7.9),
    ]


def test_goals_are_met_or_not_and_those_without_rows_are_left_out() -> None:
    corpus = {"name": "large", "title": "t", "rows": report.summary(large_rows())}
    found = goals.judge(result(corpora=[corpus]))
    told = {(one.wanted, one.measured): one.met for one in found}
    assert told["at least 2x restic", "2.10x"]
    assert not told["at least 4x borg", "3.90x"]
    assert not told["at least 80 % of the speed of zstd -1 -T0", "79 %"]
    assert told["not above the smallest peer", "1.00x smaller (restic)"]
    assert not any("kopia" in one.wanted or "restore" in one.work for one in found)
    assert max(map(len, goals.table(found).splitlines())) <= 80
    assert "| first backup, large files | at least 4x borg | 3.90x | **no** |" in goals.markdown(
        found
    )


def test_a_result_is_drawn_the_same_each_time(tmp_path: Path) -> None:
    day = {"wall_s": 1.0, "pool_bytes": 5 << 20}
    images = {
        "name": "images",
        "title": "images",
        "rows": report.summary(rows()),
        "days": {"holdfast": [day, day], "restic": [day]},
    }
    known = result(corpora=[images])
    made = plots.write(known, tmp_path)
    assert [path.name for path in made] == ["quick-images.svg", "quick-images-pool.svg"]
    texts = [path.read_text() for path in made]
    assert texts == [path.read_text() for path in plots.write(known, tmp_path)]
    for text in texts:
        ET.fromstring(text)
        assert "holdfast" in text


def test_corpora_of_several_runs_stand_in_one_result() -> None:
    known = result(corpora=[{"name": "images"}, {"name": "large", "old": True}], failures=[])
    run._add(known, {"name": "large", "failures": ["restic failed"]})
    assert known["corpora"] == [{"name": "large"}, {"name": "images"}]
    assert known["failures"] == [{"corpus": "large", "words": "restic failed"}]
    run._add(known, {"name": "large", "failures": []})
    assert known["failures"] == []


def test_a_shown_result_is_the_one_that_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result()))
    assert run.main(["--show", os.fspath(path)]) == 0
    shown = capsys.readouterr().out
    assert "borg is missing: no compiler" in shown
    assert "FAILED: restic restored less" in shown
    assert report.table("a corpus", rows()) in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_what_a_collection_gave_back_is_told_beside_its_time() -> None:
    before, after = row("days", "restic", 3.0), row("collect", "restic", 1.0)
    after.rounds[0] = replace(after.rounds[0], pool_bytes=38 << 20)
    known = report.summary([before, after])
    corpus = {"name": "images", "title": "t", "rows": known, "raw_bytes": 500 << 20}
    text = page.page(result(corpora=[corpus]))
    assert "raw bytes to one stored: restic 10.0\n" in text
    assert "given back by collecting, MiB: restic 12.0\n" in text


def test_limits_are_told_beside_the_works_they_hold_for() -> None:
    corpus = {"name": "large", "title": "t", "rows": report.summary(large_rows())}
    text = page.page(result(corpora=[corpus]))
    assert "zstd -1 -T0 7.90 (7.90-7.90) first backup 1.27x" in " ".join(text.split())


def test_the_catalog_is_measured_against_its_goals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalog_files, "TREE", 500)
    monkeypatch.setattr(catalog_files.Bench, "calibrate", lambda *_: None)
    words = ["--versions", "6000", "--directory", str(tmp_path), "--json", str(tmp_path / "json")]
    monkeypatch.setattr(sys, "argv", ["catalog_files.py", *words])
    catalog_files.main()
    made = json.loads((tmp_path / "json").read_text())
    figures = {one["work"]: one for one in made["figures"]}
    assert figures["versions"]["value"] > 4500
    assert figures["first images, two streams at a time"]["goal"] == 170_000
    assert figures["stored, all in, a version"]["value"] > 50
    assert figures["stored, all in, a version"]["met"] == (
        figures["stored, all in, a version"]["value"] <= 115
    )
    assert [path.name for path in tmp_path.iterdir()] == ["json"]
    told = capsys.readouterr().out
    assert all(one in told for one in ("median", "goal", "170,000", "load after"))


def test_incrementals_of_a_disk_are_told_by_how_much_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--gib", "0.03125", "--rounds", "2", "--incremental", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["disks.py", *words, "--json", str(tmp_path / "json")])
    disks.main()
    assert [path.name for path in tmp_path.iterdir()] == ["json"]
    made = json.loads((tmp_path / "json").read_text())
    assert (made["measured"], made["mib"], made["rounds"]) == ("incremental", 32, 2)
    changed = {"0.5 % of 32": 2, "1 % of 32": 5, "2 % of 32": 10, "4 % of 32": 20}
    changed["0.25 % of 128"] = 5
    assert made["figures"].keys() == {f"incremental, {name} MiB" for name in changed}
    for name, pieces in changed.items():
        taken = made["figures"][f"incremental, {name} MiB"]
        assert taken["changed_bytes"] == [pieces << 16] * 2
        assert all(pieces << 16 <= read <= 1.3 * (pieces << 16) for read in taken["read_bytes"])
        assert len(taken["seconds"]) == len(taken["processors_s"]) == 2
    told = capsys.readouterr().out
    assert "0.25 % of 128 MiB" in told
    assert "100% (100% to 100%)" in told


def test_peers_over_the_network_are_told_beside_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = transfer_peers.Taken
    took = {
        "holdfast": [taken(2.0, 1.0), taken(4.0, 1.0), taken(2.0, 2.0)],
        "other": [taken(4.0, 3.0), taken(4.0, 2.0), taken(6.0, 2.0)],
    }
    transfer_peers.show(took, 100, tmp_path / "figures.json", 0.0)
    told = capsys.readouterr().out.splitlines()
    assert told[1].split()[:5] == ["holdfast", "2.00", "50", "1.00x", "(1.00-1.00)"]
    assert told[2].split()[1:5] == ["4.00", "25", "2.00x", "(1.00-3.00)"]
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert (figures["other"]["times_ours"], figures["other"]["cpu_times_ours"]) == (2.0, 2.0)
