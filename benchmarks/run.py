"""Compare Holdfast with other backup programs: ``make bench-data``, or `benchmarks/run.py`.

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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks import (  # noqa: E402 - the path comes first
    corpora,
    generations,
    goals,
    measure,
    page,
    plans,
    plots,
    report,
    rounds,
    tools,
)
from benchmarks.limits import NAMES as LIMITS  # noqa: E402
from benchmarks.limits import Limits  # noqa: E402
from benchmarks.session import Session  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PLOTS = ROOT / "docs" / "performance"


def main(words: list[str] | None = None) -> int:
    """Run, print the tables, write the JSON.

    Returns:
        0, or 1 if a tool failed or restored something else than it had backed up.
    """
    options = _options().parse_args(words)
    if options.show:
        print(page.page(json.loads(options.show.read_text())), end="")
        return 0
    if options.plot:
        known = json.loads(options.plot.read_text())
        for path in plots.write(known, PLOTS):
            print(f"![{path.stem}]({path.relative_to(PLOTS.parent)})")
        print("\n" + goals.markdown(goals.judge(known)), end="")
        return 0
    work = (options.dir or _work_directory()).resolve()
    (work / "run").mkdir(parents=True, exist_ok=True)
    present, missing = _tools(options.tool or list(tools.NAMES), work / "tools")
    if not present:
        _tell("none of the tools can be had here")
        return 2
    result = _blank(options, present, missing, work)
    target = options.json or RESULTS / f"{result['mode']}-{result['made'][:10]}.json"
    if options.into:
        target, result = options.into, _continued(options.into, result)
    target.parent.mkdir(parents=True, exist_ok=True)
    for made in _measured(options, present, work, result):
        # After each corpus, so that hours are not lost with the last one.
        _add(result, made)
        target.write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + page.page(result), end="")
    _tell(f"\nwritten: {os.path.relpath(target)}")
    return 1 if result["failures"] else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare Holdfast with other backup programs, in one run on this machine."
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="under ten minutes (default)")
    mode.add_argument("--full", action="store_true", help="all corpora, full size; hours")
    parser.add_argument("--tool", action="append", choices=tools.NAMES, help="only this one (+)")
    parser.add_argument(
        "--work",
        action="append",
        metavar="NAME",
        choices=(*plans.CORPORA, *report.WORKS),
        help=f"only this corpus ({', '.join(plans.CORPORA)}), or only this work "
        f"({', '.join(report.WORKS)}) (+)",
    )
    parser.add_argument(
        "--shrink",
        type=int,
        default=1,
        metavar="N",
        help="corpora N times smaller, to try the benchmark itself",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often (depends on corpus)")
    parser.add_argument(
        "--cold", action="store_true", help="also with nothing in memory; needs root (in --full)"
    )
    parser.add_argument("--no-cold", action="store_true", help="not even in --full")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the corpora (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="put the corpora into this result of a run before"
    )
    parser.add_argument("--show", type=Path, metavar="FILE", help="only print such a result")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="only draw such a result, and print what docs/performance.md shows of it",
    )
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


def _blank(
    options: argparse.Namespace, present: list[tools.Tool], missing: dict[str, str], work: Path
) -> dict[str, Any]:
    """A result without corpora."""
    return {
        "format": report.FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "mode": "full" if options.full else "quick",
        "seed": options.seed,
        "machine": measure.machine(work),
        "tools": [
            {
                "name": one.name,
                "version": one.version,
                "settings": one.settings,
                "equal_settings": one.equal_settings,
                "forgets": list(one.forgets),
                "source": one.source,
            }
            for one in present
        ],
        "missing": missing,
        "notes": [],
        "corpora": [],
        "failures": [],
    }


def _continued(path: Path, new: dict[str, Any]) -> dict[str, Any]:
    """An earlier result, if corpora of this run may stand beside those in it."""
    if not path.exists():
        return new
    old: dict[str, Any] = json.loads(path.read_text())
    for name in ("format", "mode", "seed", "machine", "tools"):
        if old.get(name) != new[name]:
            sys.exit(f"{path} was made with another {name}: choose another file")
    return old


def _add(result: dict[str, Any], made: dict[str, Any]) -> None:
    """Put a corpus in, instead of what an earlier run said of it."""
    failures = made.pop("failures")
    before = [one for one in result["failures"] if one["corpus"] != made["name"]]
    result["failures"] = before + [{"corpus": made["name"], "words": one} for one in failures]
    others = [one for one in result["corpora"] if one["name"] != made["name"]]
    order = plans.CORPORA.index
    result["corpora"] = sorted([*others, made], key=lambda one: order(one["name"]))


def _measured(
    options: argparse.Namespace, present: list[tools.Tool], work: Path, result: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """One corpus after the other."""
    cold = (options.cold or (options.full and not options.no_cold)) and measure.can_be_cold()
    if options.cold and not cold:
        _note(result, "not measured with a cold cache: that needs root")
    limits = Limits(work / "tools")
    for name, why in limits.missing.items():
        _note(result, f"limit {name} is missing: {why}")
    for plan, works in plans.chosen(result["mode"], options.work or [], cold=cold):
        shape = corpora.Shape(plan.name, plan.amount // options.shrink, options.seed)
        _tell(f"making or finding the corpus '{plan.name}'")
        corpus = corpora.provide(shape, work / "corpora")
        place = work / "run" / str(os.getpid())
        shutil.rmtree(place, ignore_errors=True)
        session = Session(corpus, present, place, _tell)
        count = options.rounds or plan.rounds
        load = measure.load()
        known: dict[str, Any] = {}
        try:
            if plan.generations:
                days = plan.generations
                known["days"] = generations.run(session, works, count, days)
                known |= {"generations": days, "raw_bytes": corpus.size_bytes * days}
            else:
                rounds.run(session, works, count, limits)
        finally:
            session.end()
        kept = {*works, report.LIMIT, "first", "catalog"}
        rows = session.sorted_rows((*tools.NAMES, *LIMITS))
        yield {
            "name": plan.name,
            "title": corpus.title,
            "files": corpus.files,
            "size_bytes": corpus.size_bytes,
            "digest": corpus.digest,
            "rounds": count,
            "load": [load, measure.load()],
            **known,
            "rows": report.summary([row for row in rows if row.work in kept]),
            "failures": session.failures,
        }


def _note(result: dict[str, Any], words: str) -> None:
    _tell(words)
    if words not in result["notes"]:
        result["notes"].append(words)


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
