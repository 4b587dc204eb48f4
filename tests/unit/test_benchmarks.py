"""The benchmark: what it makes is the same each time, and what it reports follows."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    corpora,
    generations,
    measure,
    plans,
    report,
    rounds,
    tools,
    transfer_memory,
    transfer_peers,
    verify,
)
from benchmarks.session import Session
from benchmarks.tools import install
from benchmarks.tools.tool import DIRECTORY_TIMES, HARD_LINKS, LINK_TIMES, TOP_TIME, last_json

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


def test_what_a_process_takes_is_what_the_kernel_says() -> None:
    own = os.times()
    assert transfer_peers._cpu_s(os.getpid()) >= own.user + own.system
    assert 10 < transfer_memory.peak_mib(os.getpid()) < 10_000
