"""Measure an agent's memory: ``python benchmarks/transfer_memory.py [--files 1000000] [--dir D]``.

``[--json FILE]``. An agent backs up that many tiny files to a media server of a served site: all
of them, then again with nothing new. Prints the most memory that was resident in each process
(``VmHWM``), and for how long each backup was at work. The files take some GiB and many inodes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.corpora import tiny_files  # noqa: E402 - the path comes first
from benchmarks.corpora.writer import Writer  # noqa: E402
from benchmarks.real_site import protect, real_site, run_jobs  # noqa: E402

GOAL_MIB = 300


def main(words: list[str] | None = None) -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description="Measure the memory of an agent.")
    options.add_argument("--files", type=int, default=1_000_000)
    options.add_argument("--dir", type=Path, help="for files and pool; else the temporary one")
    options.add_argument("--corpus", type=Path, help="files that are there, or are to stay there")
    options.add_argument("--json", type=Path, help="where to write the figures, too")
    given = options.parse_args(words)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=given.dir) as made:
        corpus = given.corpus or Path(made) / "corpus"
        if not corpus.exists():
            corpus.mkdir()
            tiny_files.make(1, given.files, Writer(corpus))
        figures = measured(Path(made) / "site", corpus)
        shutil.rmtree(made)
        Path(made).mkdir()
    for what, found in figures.items():
        print(
            f"{what:14} {found['seconds']:7.1f} s   agent {found['agent_mib']:4} MiB   "
            f"media server {found['media_server_mib']:4} MiB   master {found['master_mib']:4} MiB"
        )
    peak = max(one["agent_mib"] for one in figures.values())
    print(f"an agent's goal of {GOAL_MIB} MiB is {'met' if peak < GOAL_MIB else 'NOT met'}")
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    print(f"processes wanting to run, before and after: {load[0]}, {load[1]}")
    if given.json is not None:
        result = {"processors": os.cpu_count(), "load": load, "files": given.files}
        given.json.write_text(json.dumps(result | {"figures": figures}, indent=2) + "\n")
    return 0


def measured(directory: Path, corpus: Path) -> dict[str, dict[str, float]]:
    """Both backups."""
    figures: dict[str, dict[str, float]] = {}
    with (
        real_site(directory) as network,
        network.media_server("media1") as media,
        network.machine("web1") as agent,
    ):
        protect(network, "web1", corpus)
        assert agent.process is not None
        assert media.process is not None
        whose = {
            "agent_mib": agent.process.pid,
            "media_server_mib": media.process.pid,
            "master_mib": network.running.process.pid,
        }
        for what in ("all of them", "nothing new"):
            seconds = run_jobs(network, "web1")
            peaks = {name: peak_mib(pid) for name, pid in whose.items()}
            figures[what] = {"seconds": round(seconds, 1), **peaks}
    return figures


def peak_mib(pid: int) -> int:
    """The most memory that was resident in a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith("VmHWM:"))
    return int(found.split()[1]) // 1024


if __name__ == "__main__":
    sys.exit(main())
