"""Hold the engine's inner loops to the instructions they were recorded with: ``make instructions``.

Times are noisy where machines are shared; the instructions of one loop over one input are not.
They say nothing about waiting for memory or for disks: see run for that. Counting is valgrind's,
whose processor has AVX2 and AES but no AVX-512, so counts of different machines agree. Compilers
do not: with another one than the record's, only coarse differences mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "instructions.json"
PACKAGE = "holdfast-engine-instructions"
TOLERANCE = 0.03
COARSE_TOLERANCE = 0.15
# The allocator tidies up when sizes of neighbours happen to add up: not while it is watched.
TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {"mxfast": 0, "trim_threshold": 1 << 30, "mmap_threshold": 1 << 30}.items()
)
HINT = "hint: if it is meant, record it with 'benchmarks/instructions.py --write' and say why"


@dataclass(frozen=True, slots=True)
class Loop:
    """One inner loop, as the program that holds them lists it."""

    name: str
    units: int
    unit: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one loop."""

    name: str
    recorded: int | None
    counted: int | None
    tolerance: float

    @property
    def change(self) -> float | None:
        """The difference as a part of what was recorded; None if there is nothing to compare."""
        if self.recorded is None or self.counted is None:
            return None
        return self.counted / self.recorded - 1

    @property
    def is_broken(self) -> bool:
        return self.change is None or self.change > self.tolerance

    @property
    def is_gain(self) -> bool:
        return self.change is not None and self.change < -self.tolerance

    @property
    def words(self) -> str:
        if self.recorded is None:
            return "is not recorded"
        if self.counted is None:
            return "is recorded but does not exist"
        if self.is_broken:
            return "takes more than recorded"
        return "takes less than recorded" if self.is_gain else "as recorded"


def main(words: list[str] | None = None) -> int:
    """Count, and compare or record.

    Returns:
        0, or 1 if a loop takes more instructions than recorded. 0 also where nothing can be
        counted or compared, which is said.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare with the record (the default)")
    what.add_argument("--write", action="store_true", help="make the counts the record")
    options = parser.parse_args(words)
    if shutil.which("valgrind") is None:
        print("instructions were not counted: valgrind is not installed", file=sys.stderr)
        return 2 if options.write else 0
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    here = environment()
    if not options.write and record["counted_with"]["machine"] != here["machine"]:
        print(f"instructions were not counted: none are recorded for {here['machine']}")
        return 0
    program = build()
    loops = listed(program)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = dict(pool.map(lambda loop: (loop.name, count(program, loop)), loops))
    if options.write:
        record = {"counted_with": here, "instructions": counted}
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
        return 0
    return report(loops, counted, record, here)


def report(
    loops: list[Loop], counted: dict[str, int], record: dict[str, Any], here: dict[str, str]
) -> int:
    """Print what was counted beside what was recorded; 1 if a loop is broken."""
    tolerance = TOLERANCE
    for name, then in record["counted_with"].items():
        if then != here[name]:
            tolerance = COARSE_TOLERANCE
            print(f"recorded with {then}, counted with {here[name]}: only coarse differences count")
    verdicts = compare(record["instructions"], counted, tolerance)
    units = {loop.name: loop for loop in loops}
    print(f"{'loop':<20} {'instructions':>12} {'change':>8}  each")
    for verdict in verdicts:
        change = "" if verdict.change is None else f"{verdict.change:+8.1%}"
        each = ""
        if verdict.counted is not None:
            loop = units[verdict.name]
            each = f"{verdict.counted / loop.units:.4g} per {loop.unit}"
        print(f"{verdict.name:<20} {verdict.counted or 0:12,} {change:>8}  {each}")
    notable = [verdict for verdict in verdicts if verdict.is_broken or verdict.is_gain]
    for verdict in notable:
        kind = "error" if verdict.is_broken else "note"
        print(f"{kind}: '{verdict.name}' {verdict.words}", file=sys.stderr)
    if notable:
        print(HINT, file=sys.stderr)
    return int(any(verdict.is_broken for verdict in verdicts))


def compare(recorded: dict[str, int], counted: dict[str, int], tolerance: float) -> list[Verdict]:
    """One verdict for each loop that is recorded or exists."""
    return [
        Verdict(name, recorded.get(name), counted.get(name), tolerance)
        for name in [*counted, *(name for name in recorded if name not in counted)]
    ]


def environment() -> dict[str, str]:
    """What the counts depend on besides the source: the processor's kind and the compilers."""
    return {
        "machine": platform.machine(),
        "rustc": " ".join(_said("rustc", "--version").split()[:2]),
        "cc": _said("cc", "--version").splitlines()[0],
        "valgrind": _said("valgrind", "--version").strip(),
        "libc": " ".join(platform.libc_ver()),
    }


def build() -> str:
    """Build the program of the loops as the product is built; its path."""
    words = ("--release", "--locked", "--quiet", "--message-format=json-render-diagnostics")
    for line in _said("cargo", "build", *words, "--package", PACKAGE).splitlines():
        built = json.loads(line)
        if built.get("executable"):
            return str(built["executable"])
    raise RuntimeError(f"cargo built no program of {PACKAGE}")


def listed(program: str) -> list[Loop]:
    """The loops that a program has."""
    rows = (line.split("\t") for line in _said(program).splitlines())
    return [Loop(name, int(units), unit) for name, units, unit in rows]


def count(program: str, loop: Loop) -> int:
    """The instructions of one loop."""
    with tempfile.TemporaryDirectory(prefix="holdfast-instructions-") as place:
        words = (
            "--tool=callgrind",
            f"--callgrind-out-file={place}/out",
            "--toggle-collect=*measured*",
        )
        done = subprocess.run(
            ["valgrind", *words, program, loop.name, place],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"GLIBC_TUNABLES": TUNABLES},
        )
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or collected is None or int(collected[1]) == 0:
        raise RuntimeError(f"'{loop.name}' was not counted:\n{done.stderr}")
    return int(collected[1])


def _said(*words: str) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


if __name__ == "__main__":
    sys.exit(main())
