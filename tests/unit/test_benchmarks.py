"""The benchmark: what it makes is the same each time, and what it reports follows."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import (
    catalog_files,
    content,
    corpora,
    generations,
    goals,
    measure,
    page,
    plans,
    plots,
    report,
    rounds,
    run,
    tools,
    transfer_memory,
    transfer_peers,
    verify,
)
from benchmarks.corpora import disk_images
from benchmarks.session import Session
from benchmarks.tools import install
from benchmarks.tools.tool import DIRECTORY_TIMES, HARD_LINKS, LINK_TIMES, TOP_TIME, last_json
from holdfast.movers.comparison import compare_trees

SMALL = corpora.Shape("small", 150, 7)
LARGE = corpora.Shape("large", 1 << 20, 7)
TINY = corpora.Shape("tiny", 250, 7)
IMAGES = corpora.Shape("images", 2 << 20, 7)


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


@pytest.mark.parametrize("shape", [SMALL, LARGE, TINY, IMAGES], ids=lambda shape: shape.name)
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
    """A tool that stores plain copies, and may lose a byte of each restore, or fail."""

    version = "1"
    settings = equal_settings = source = remark = ""
    forgets: tuple[str, ...] = ()

    def __init__(self, name: str, *, loses: bool = False, fails: str = "") -> None:
        self.name = name
        self._loses = loses
        self._fails = fails

    def init(self, place: tools.Place) -> list[tools.Step]:
        return [self._step(place, f"mkdir -p {place.pool}")]

    def backup(self, place: tools.Place, number: int) -> tools.Step:
        if self._fails == "backup" and number > 1:
            return self._step(place, "echo full >&2; exit 3")
        return self._step(place, f"cp -a {place.corpus} {place.pool}/{number}")

    def restore(self, place: tools.Place, backup: tools.Backup) -> tools.Step:
        return self._copy(place, f"{place.pool}/{backup.number}", place.restored)

    def restore_one(self, place: tools.Place, backup: tools.Backup, path: str) -> tools.Step:
        return self._copy(place, f"{place.pool}/{backup.number}/{path}", place.restored / path)

    def expire(self, place: tools.Place, backups: Sequence[tools.Backup]) -> tools.Step:
        names = " ".join(f"{place.pool}/{one.number}" for one in backups)
        return self._step(place, f"mv {names} {place.state}")

    def collect(self, place: tools.Place) -> tools.Step:
        return self._step(place, f"rm -r {place.state}/*")

    def find(self, place: tools.Place, name: str) -> list[tools.Step]:
        if self.name == "borg":
            return []
        found = self._step(place, f"ls -d {place.pool}/* && find {place.pool} -name {name}")
        if self._fails == "find":
            found = self._step(place, f"ls -d {place.pool}/*")
        return [self._step(place, "true"), found] if self.name == "holdfast" else [found]

    def engine_s(self, output: str) -> float | None:
        return None

    def _copy(self, place: tools.Place, source: str, into: Path) -> tools.Step:
        lose = f"; truncate -s -1 $(find {into} -type f -size +1k | head -n 1)"
        copy = f"mkdir -p {into.parent} && cp -a {source} {into}"
        return self._step(place, copy + lose * self._loses)

    def _step(self, place: tools.Place, words: str) -> tools.Step:
        return tools.Step(["sh", "-c", words], place.environment())


def session(shape: corpora.Shape, place: Path, *copiers: Copier) -> Session:
    corpus = corpora.provide(shape, place / "corpora")
    told: list[str] = []
    return Session(corpus, copiers, place / "run", told.append)


def test_a_tool_that_restores_something_else_is_caught(tmp_path: Path) -> None:
    honest, lossy = Copier("holdfast"), Copier("restic", loses=True)
    works = session(corpora.Shape("small", 20, 3), tmp_path, honest, lossy)
    rounds.run(works, ["first", "again", "changed", "restore"], 2)
    works.end()
    assert len(works.failures) == 2
    assert all("restic" in one and "differences" in one for one in works.failures)
    assert [sorted(one.rounds) for one in works.rows] == [[0, 1]] * 8
    assert not (tmp_path / "run").exists()


def test_a_tool_that_fails_is_left_out_of_the_rest_of_its_round(tmp_path: Path) -> None:
    works = session(SMALL, tmp_path, Copier("holdfast"), Copier("borg", fails="backup"))
    rounds.run(works, ["first", "again", "one"], 1)
    assert [(row.work, row.tool) for row in works.sorted_rows(["holdfast", "borg"])] == [
        ("first", "holdfast"),
        ("first", "borg"),
        ("again", "holdfast"),
        ("one", "holdfast"),
    ]
    assert len(works.failures) == 1
    assert "ended with 3: full" in works.failures[0]


def test_ten_backups_are_searched_by_those_who_can(tmp_path: Path) -> None:
    names = ["holdfast", "restic", "rustic", "borg"]
    copiers = [Copier(name, fails="find" * (name == "rustic")) for name in names]
    works = session(SMALL, tmp_path, *copiers)
    said: dict[str, str] = {}
    take = works.take

    def listen(number: int, work: str, tool: Copier, *more: Any, **named: Any) -> str:
        said[tool.name] = take(number, work, tool, *more, **named)
        return said[tool.name]

    works.take = listen  # type: ignore[method-assign, assignment]
    rounds.run(works, ["find"], 1)
    assert [(row.work, row.tool) for row in works.sorted_rows(names)] == [
        ("catalog", "holdfast"),
        ("find", "holdfast"),
        ("find", "restic"),
        ("find", "rustic"),
    ]
    copies = [line for line in said["restic"].splitlines() if line.endswith("/pool/10")]
    assert len(copies) == 1
    (failure,) = works.failures
    assert failure.startswith("rustic")
    assert "did not find" in failure


def test_only_what_a_tool_is_known_to_forget_is_forgiven(tmp_path: Path) -> None:
    corpus = corpora.provide(corpora.Shape("small", 300, 1), tmp_path)
    other = tmp_path / "restored"
    # As cp without options copies: times are lost, and hard links.
    shutil.copytree(corpus.root, other, symlinks=True, copy_function=shutil.copy)
    everything = (DIRECTORY_TIMES, HARD_LINKS, LINK_TIMES, TOP_TIME)
    left = verify.compare(corpus.root, other, everything)
    assert left.forgiven > 0
    names = {one.path for one in left.differences}
    assert all((corpus.root / os.fsdecode(name)).is_file() for name in names)
    assert "differences; the first" in verify.complaint(left, 1)
    os.utime(other, ns=(1, 1))
    only = verify.compare(corpus.root, other, (TOP_TIME,))
    assert only.forgiven == 1
    same = verify.compare(corpus.root, corpus.root, ())
    assert verify.complaint(same, corpus.files) == ""
    assert "were compared" in verify.complaint(same, same.files + 1)


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=lambda shape: shape.name)
def test_one_percent_changes_and_is_put_back(shape: corpora.Shape, tmp_path: Path) -> None:
    corpus = corpora.provide(shape, tmp_path / "one")
    other = corpora.provide(shape, tmp_path / "other")
    corpus.change()
    seen = compare_trees(os.fsencode(corpus.root), os.fsencode(other.root))
    changed = {one.path for one in seen.differences}
    assert len(changed) == (corpus.files if corpus.few else 1)
    # What an interrupted run left changed is put back by the next.
    again = corpora.provide(shape, tmp_path / "one")
    assert not compare_trees(os.fsencode(again.root), os.fsencode(other.root)).differences
    assert not list((tmp_path / "one").glob("*.journal"))


def test_disk_images_share_most_of_the_system_and_no_work_data(tmp_path: Path) -> None:
    corpus = corpora.provide(corpora.Shape("images", 4 << 20, 1), tmp_path)

    def blocks(number: int) -> list[bytes]:
        data = (corpus.root / disk_images.name(number)).read_bytes()
        size = disk_images.BLOCK_BYTES
        return [data[at : at + size] for at in range(0, len(data), size)]

    one, other = blocks(0), blocks(1)
    system = int(len(one) * 0.42)
    shared = set(one[:system]) & set(other[:system])
    assert len(shared) > system * 0.8
    assert one[:system] != other[:system]
    zero = bytes(disk_images.BLOCK_BYTES)
    assert not (set(one[system:]) & set(other[system:])) - {zero}
    assert one[-1] == zero


def test_a_generation_changes_little_and_is_the_same_anywhere(tmp_path: Path) -> None:
    made = [
        corpora.provide(corpora.Shape("images", 4 << 20, 1), tmp_path / name)
        for name in ("one", "other", "before")
    ]
    for corpus in made[:2]:
        disk_images.advance(corpus.root, 1, 1)
    one, other, before = ((corpus.root / disk_images.name(3)).read_bytes() for corpus in made)
    assert one == other
    assert len(one) == len(before)
    size = disk_images.BLOCK_BYTES
    places = range(0, len(one), size)
    changed = sum(one[at : at + size] != before[at : at + size] for at in places)
    assert 0 < changed < len(places) * 0.03


def test_days_are_summed_and_garbage_goes_before_the_restore(tmp_path: Path) -> None:
    works = session(IMAGES, tmp_path, Copier("holdfast"), Copier("restic", loses=True))
    series = generations.run(works, ["expire", "collect", "restore"], 1, 3)
    known = {(row.work, row.tool): row.rounds[0] for row in works.rows}
    days = known["days", "holdfast"]
    assert days.wall_s == pytest.approx(sum(day["wall_s"] for day in series["holdfast"]))
    assert days.pool_bytes == 3 * 16 << 20
    assert known["collect", "holdfast"].pool_bytes == 2 * 16 << 20
    assert len(works.failures) == 1
    assert "restic restored eight disk images" in works.failures[0]


def test_the_last_object_of_lines_is_taken_for_what_was_made() -> None:
    assert last_json('{"a": 1}\n{"snapshot_id": "x"}\n', "restic") == {"snapshot_id": "x"}
    assert last_json('{\n "id": "y"\n}\n', "rustic") == {"id": "y"}
    with pytest.raises(tools.ToolError, match="borg did not say"):
        last_json("done\n", "borg")


GO = """#!/bin/sh
case "$1 $2" in
"install example.org/x/cmd@latest") echo "go: reading the list: 403 Forbidden" >&2; exit 1 ;;
"mod download") echo '{"Dir": "'"$MODULE"'"}' ;;
"build -trimpath") test -f cmd/main.go && printf '#!/bin/sh\\necho unofficial\\n' > "$4" &&
    chmod +x "$4" ;;
esac
"""


def test_where_the_newest_is_not_told_a_known_version_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "module"
    (module / "cmd").mkdir(parents=True)
    (module / "cmd" / "main.go").touch()
    go = tmp_path / "path" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MODULE", os.fspath(module))
    cache = tmp_path / "cache"
    (cache / "bin").mkdir(parents=True)
    what = install.GoProgram("no-such-program", "example.org/x", "cmd", "v1.2.3")
    made = install.go_program(what, cache)
    assert (made.version, made.source, made.remark) == ("1.2.3", "Go module", "")
    # Later runs find it, and its version, though it does not say that itself.
    go.unlink()
    assert install.go_program(what, cache) == made


def test_a_program_that_cannot_be_had_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(tools.ToolMissingError, match=r"no Rust toolchain.*cargo install"):
        install.cargo_program("no-such-program", "no-such-crate", "1.0", tmp_path)


def test_works_and_corpora_can_be_named() -> None:
    assert [plan.name for plan, _ in plans.chosen("quick", [], cold=False)] == [
        "small",
        "large",
        "images",
    ]
    ((plan, works),) = plans.chosen("quick", ["large", "again"], cold=True)
    assert (plan.name, works) == ("large", ("again",))
    assert all("cold-first" not in works for _, works in plans.chosen("full", [], cold=False))


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


def test_what_a_process_takes_is_what_the_kernel_says() -> None:
    own = os.times()
    assert transfer_peers._cpu_s(os.getpid()) >= own.user + own.system
    assert 10 < transfer_memory.peak_mib(os.getpid()) < 10_000
