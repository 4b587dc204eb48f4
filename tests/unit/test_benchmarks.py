"""The benchmark: what it makes is the same each time, and what it reports follows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from random import Random

import pytest

from benchmarks import content, corpora, measure, report, rounds, run, tools
from holdfast.movers.comparison import compare_trees

SMALL = corpora.Shape("small", 150, 7)
LARGE = corpora.Shape("large", 1 << 20, 7)


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


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=lambda shape: shape.name)
def test_a_seed_gives_the_same_files_anywhere(shape: corpora.Shape, tmp_path: Path) -> None:
    one = corpora.provide(shape, tmp_path / "one")
    other = corpora.provide(shape, tmp_path / "other")
    assert (one.digest, one.files, one.size_bytes) == (other.digest, other.files, other.size_bytes)
    # Not only what the generator says of itself: what is on the disk.
    same = compare_trees(os.fsencode(one.root), os.fsencode(other.root))
    assert same.differences == []
    assert same.files >= one.files
    assert same.bytes_compared >= one.size_bytes


def test_another_seed_gives_other_files(tmp_path: Path) -> None:
    one = corpora.provide(SMALL, tmp_path)
    other = corpora.provide(corpora.Shape("small", 150, 8), tmp_path)
    assert one.root != other.root
    assert one.digest != other.digest


def test_the_source_tree_has_links_copies_and_many_directories(tmp_path: Path) -> None:
    corpus = corpora.provide(corpora.Shape("small", 1500, 1), tmp_path)
    paths = [Path(above, one) for above, _, names in os.walk(corpus.root) for one in names]
    assert any(path.is_symlink() for path in paths)
    assert any(path.stat().st_nlink == 2 for path in paths if not path.is_symlink())
    contents = [path.read_bytes() for path in paths if not path.is_symlink()]
    assert len(set(contents)) < corpus.files
    assert len({path.parent for path in paths}) > 50


def test_a_corpus_that_is_there_is_used_again(tmp_path: Path) -> None:
    first = corpora.provide(SMALL, tmp_path)
    mark = first.root / "mark"
    mark.touch()
    assert corpora.provide(SMALL, tmp_path) == first
    assert mark.exists()


def test_what_an_interrupted_run_left_is_not_used(tmp_path: Path) -> None:
    whole = corpora.provide(SMALL, tmp_path / "whole")
    place = tmp_path / "broken"
    (place / f"{whole.root.name}.unfinished").mkdir(parents=True)
    (place / f"{whole.root.name}.unfinished" / "half a file").touch()
    (place / whole.root.name).mkdir()
    again = corpora.provide(SMALL, place)
    assert again.digest == whole.digest
    assert not compare_trees(os.fsencode(whole.root), os.fsencode(again.root)).differences_total


@pytest.mark.parametrize("size", [0, 1, 255, 300_000])
def test_each_content_has_exactly_the_size_that_was_asked_for(size: int) -> None:
    words = content.vocabulary(Random(1), 50)
    for pieces in (
        content.source_text(Random(1), words, size),
        content.machine_code(Random(1), size),
        content.log_text(Random(1), size),
        content.database_pages(Random(1), size),
        content.incompressible(Random(1), size),
    ):
        assert len(b"".join(pieces)) == size


def test_a_newer_version_shares_most_with_the_older_one_but_shifts_it() -> None:
    old = list(content.incompressible(Random(1), 8 << 20))
    new = list(content.edited(old, Random(2)))
    same = sum(one == other for one, other in zip(old, new, strict=True))
    assert len(old) / 2 < same < len(old)
    assert len(b"".join(new)) > 8 << 20


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


def test_a_measured_command_is_charged_with_its_children(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}]); print('x')"
    command = [sys.executable, "-c", child]
    sample, said = measure.run(command, dict(os.environ), tmp_path)
    assert said == "x\n"
    assert sample.cpu_s >= 0.2
    assert sample.wall_s >= 0.2
    assert 1 << 20 < sample.peak_bytes < 1 << 30


def test_a_command_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such repository')"]
    with pytest.raises(tools.ToolError, match="ended with 1: no such repository"):
        measure.run(command, dict(os.environ), tmp_path)


class Copier:
    """A tool that stores a plain copy, and may lose a byte of each restore."""

    version = "1"
    settings = source = remark = ""

    def __init__(self, name: str, *, loses: bool) -> None:
        self.name = name
        self._loses = loses

    def init(self, place: tools.Place) -> tools.Step:
        return self._step(place, f"mkdir -p {place.pool}")

    def backup(self, place: tools.Place, number: int) -> tools.Step:
        return self._step(place, f"cp -a {place.corpus} {place.pool}/{number}")

    def restore(self, place: tools.Place, number: int) -> tools.Step:
        into = place.restored
        lose = f"; truncate -s -1 $(find {into} -type f -size +1k | head -n 1)"
        copy = f"mkdir -p {into.parent} && cp -a {place.pool}/{number} {into}"
        return self._step(place, copy + lose * self._loses)

    def engine_s(self, output: str) -> float | None:
        return None

    def _step(self, place: tools.Place, words: str) -> tools.Step:
        return tools.Step(["sh", "-c", words], place.environment())


def test_a_tool_that_restores_something_else_is_caught(tmp_path: Path) -> None:
    corpus = corpora.provide(corpora.Shape("small", 20, 3), tmp_path / "corpora")
    honest, lossy = Copier("holdfast", loses=False), Copier("restic", loses=True)
    told: list[str] = []
    works = rounds.Rounds(
        corpus, [honest, lossy], list(report.WORKS), tmp_path / "run", told.append
    )
    works.run(2)
    assert len(works.failures) == 2
    assert all("restic" in one and "differences" in one for one in works.failures)
    assert [sorted(one.rounds) for one in works.rows] == [[0, 1]] * 6
    assert not (tmp_path / "run").exists()


def test_a_shown_result_is_the_one_that_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {
        "machine": measure.machine(tmp_path),
        "rounds": 3,
        "load": [0.5, 1.5],
        "tools": [],
        "missing": {"borg": "no compiler"},
        "corpora": [{"title": "a corpus", "rows": report.summary(rows())}],
        "failures": ["restic restored less"],
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    assert run.main(["--show", os.fspath(path)]) == 0
    shown = capsys.readouterr().out
    assert "borg is missing: no compiler" in shown
    assert "FAILED: restic restored less" in shown
    assert report.table("a corpus", rows()) in shown
    assert max(map(len, shown.splitlines())) <= 80
