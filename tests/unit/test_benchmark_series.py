"""A series of benchmarks leaves out what can't run, and goes on after what fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import series

ROOT = Path(__file__).resolve().parents[2]


def test_every_benchmark_of_transfers_is_in_the_series() -> None:
    there = {path.stem for path in (ROOT / "benchmarks").glob("transfer*.py")}
    assert there
    assert there <= {one.script for one in series.TRANSFER}
    for one in (*series.TRANSFER, *series.MACHINES):
        assert (ROOT / "benchmarks" / f"{one.script}.py").exists()


def test_bench_measures_every_part() -> None:
    text = (ROOT / "Makefile").read_text()
    parts = set(re.findall(r"^(bench-[a-z]+):", text, re.MULTILINE))
    said = re.search(r"^BENCHES := (.*)$", text, re.MULTILINE)
    assert said is not None
    assert set(said[1].split()) == parts
    assert {"bench-data", "bench-transfer", "bench-machines"} <= parts


def test_what_needs_root_is_left_out_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    words = [f"--only={name}" for name in ("transfer_paths", "transfer_quotas")]
    assert series.main(["transfer", "--smallest", *words]) == 0
    said = [line for line in capfd.readouterr().out.splitlines() if line]
    assert said == [
        "left out: benchmarks/transfer_paths.py --shrink 20: needs root",
        "left out: benchmarks/transfer_quotas.py --mib 8 --rounds 1 --quota 0.5: needs root",
    ]


def test_what_is_missing_is_named() -> None:
    assert series.programs("sh")() == ""
    assert series.programs("sh", "no-such-a", "no-such-b")() == (
        "needs the programs no-such-a, no-such-b"
    )
    assert series.library("json")() == ""
    assert series.library("no_such_library")() == "needs the library no_such_library"


def test_one_that_fails_does_not_keep_the_next_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "bad.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "benchmarks" / "good.py").write_text("import sys; print('good', *sys.argv[1:])\n")
    monkeypatch.setattr(series, "ROOT", tmp_path)
    some = (
        series.Benchmark("bad", "--a", "--b", "--c"),
        series.Benchmark("good", "--full 1", "--mib 2", "--mib 3"),
    )
    monkeypatch.setattr(series, "SERIES", {"machines": some})
    assert series.main(["machines"]) == 1
    told = capfd.readouterr()
    assert "good --mib 2\n" in told.out
    assert "ended with 3" in told.out
    assert told.err.splitlines()[-1] == "failed: bad"
    assert series.main(["machines", "--full", "--only", "good"]) == 0
    assert "good --full 1\n" in capfd.readouterr().out
