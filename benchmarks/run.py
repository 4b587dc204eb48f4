"""Compare Holdfast with other backup programs: ``make bench``, or ``python benchmarks/run.py``.

Must not know how any tool is driven: see tools. Invariant: every number in one report comes from
one run, in which the tools took turns on this machine; numbers of different runs say nothing
about each other.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks import corpora, measure, report, tools  # noqa: E402 - the path comes first
from benchmarks.rounds import Rounds  # noqa: E402

SHAPES = {
    "quick": {"small": 20_000, "large": 512 << 20},
    "full": {"small": 200_000, "large": 8 << 30},
}
RESULTS = ROOT / "benchmarks" / "results"


def main(words: list[str] | None = None) -> int:
    """Run, print the tables, write the JSON.

    Returns:
        0, or 1 if a tool failed or restored something else than it had backed up.
    """
    options = _options().parse_args(words)
    if options.show:
        print(report.page(json.loads(options.show.read_text())), end="")
        return 0
    work = (options.dir or _work_directory()).resolve()
    (work / "run").mkdir(parents=True, exist_ok=True)
    present, missing = _tools(options.tool or list(tools.NAMES), work / "tools")
    if not present:
        _tell("none of the tools can be had here")
        return 2
    result = _measured(options, present, missing, work)
    target = options.json or RESULTS / f"{result['mode']}-{result['made'][:10]}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + report.page(result), end="")
    _tell(f"\nwritten: {os.path.relpath(target)}")
    return 1 if result["failures"] else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare Holdfast with other backup programs, in one run on this machine."
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="under ten minutes (default)")
    mode.add_argument("--full", action="store_true", help="200,000 files and 8 GiB; hours")
    parser.add_argument("--tool", action="append", choices=tools.NAMES, help="only this one (+)")
    parser.add_argument(
        "--work",
        action="append",
        choices=(*SHAPES["quick"], *report.WORKS),
        help="only this corpus, or only this work (+)",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often (3)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the corpora (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.add_argument("--show", type=Path, metavar="FILE", help="only print such a result")
    parser.add_argument(
        "--dir", type=Path, help="corpora and tools (HOLDFAST_BENCH_DIR, else benchmarks/work)"
    )
    return parser


def _work_directory() -> Path:
    named = os.environ.get("HOLDFAST_BENCH_DIR")
    return Path(named) if named else ROOT / "benchmarks" / "work"


def _tools(names: list[str], cache: Path) -> tuple[list[tools.Tool], dict[str, str]]:
    present: list[tools.Tool] = []
    missing: dict[str, str] = {}
    for name in tools.NAMES:
        if name not in names:
            continue
        try:
            tool = tools.provide(name, cache)
        except tools.ToolMissingError as why:
            missing[name] = str(why)
            _tell(f"goes on without {name}: {why}")
            continue
        present.append(tool)
        _tell(f"{tool.name} {tool.version} from {tool.source} {tool.remark}".rstrip())
    return present, missing


def _measured(
    options: argparse.Namespace, present: list[tools.Tool], missing: dict[str, str], work: Path
) -> dict[str, Any]:
    mode = "full" if options.full else "quick"
    wanted = options.work or []
    shapes = [name for name in SHAPES[mode] if name in wanted] or list(SHAPES[mode])
    works = [name for name in report.WORKS if name in wanted] or list(report.WORKS)
    load = measure.load()
    made, failures = [], []
    for name in shapes:
        shape = corpora.Shape(name, SHAPES[mode][name], options.seed)
        _tell(f"making or finding the corpus '{name}'")
        corpus = corpora.provide(shape, work / "corpora")
        corpora.warm(corpus)
        place = work / "run" / str(os.getpid())
        shutil.rmtree(place, ignore_errors=True)
        rounds = Rounds(corpus, present, works, place, _tell)
        rounds.run(options.rounds)
        failures += rounds.failures
        made.append(
            {
                "name": name,
                "title": corpus.title,
                "files": corpus.files,
                "size_bytes": corpus.size_bytes,
                "digest": corpus.digest,
                "rows": report.summary(rounds.rows),
            }
        )
    return {
        "format": report.FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "mode": mode,
        "seed": options.seed,
        "rounds": options.rounds,
        "machine": measure.machine(work),
        "load": [load, measure.load()],
        "tools": [
            {
                "name": one.name,
                "version": one.version,
                "settings": one.settings,
                "source": one.source,
            }
            for one in present
        ],
        "missing": missing,
        "corpora": made,
        "failures": failures,
    }


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
