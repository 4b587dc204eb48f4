"""Measure the master server: ``make bench-master``, or `benchmarks/master/run.py [PART …]`.

    python benchmarks/master/run.py due dispatch --json due.json
    python benchmarks/master/run.py lists --images 1000000 --history 100000

Parts: due, dispatch, machines, lists. Each is measured on SQLite and, where Debian's package is
installed, on a PostgreSQL that is started for it; both write as durably as they do in a site.
Prints a table with the goals, and ends with 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.master import dispatching, due, images, jobs, machines  # noqa: E402 - the path comes first
from benchmarks.master.figures import Figure, table  # noqa: E402
from benchmarks.master.places import databases  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PARTS = ("due", "dispatch", "machines", "lists")


def main(words: list[str] | None = None) -> int:
    """Measure, and print; 1 if a goal is missed."""
    given = _options().parse_args(words)
    parts = given.parts or PARTS
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        print(f"there is no part '{unknown[0]}': say {', '.join(PARTS)}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    before = os.getloadavg()[0]
    for some in _measured(parts, given):
        print(table(some), end="", flush=True)
        figures += some
    if given.json is not None:
        result = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "processors": os.cpu_count(),
            "load": [round(before, 1), round(os.getloadavg()[0], 1)],
            "figures": [one.to_json() for one in figures],
        }
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return int(any(one.met is False for one in figures))


def _measured(parts: Sequence[str], given: argparse.Namespace) -> Iterator[list[Figure]]:
    if "due" in parts:
        yield due.figures(given.policies, given.policies // 2)
    with databases() as kinds:
        for kind, make in kinds.items():
            if "dispatch" in parts:
                for with_images in (False, True):
                    with tempfile.TemporaryDirectory() as place:
                        yield dispatching.figures(
                            kind, make(), Path(place), given.jobs, images=with_images
                        )
            if "machines" in parts:
                with tempfile.TemporaryDirectory() as place:
                    yield machines.figures(kind, make(), Path(place), given.machines)
            if "lists" in parts:
                yield jobs.figures(kind, make(), given.history, given.rounds)
                yield images.figures(kind, make(), given.images, given.rounds)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="all if none is named")
    parser.add_argument("--policies", type=int, default=10_000, help="active ones")
    parser.add_argument("--jobs", type=int, default=2_000, help="jobs that are dispatched")
    parser.add_argument("--history", type=int, default=100_000, help="jobs that have ended")
    parser.add_argument("--machines", type=int, default=200, help="agents with four jobs each")
    parser.add_argument("--images", type=int, default=1_000_000, help="images in the catalog")
    parser.add_argument("--rounds", type=int, default=40, help="times each list is asked for")
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
