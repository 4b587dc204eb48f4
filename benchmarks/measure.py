"""Time, processor time and peak memory of one command; sizes of directories; the machine.

Must not name the machine or a path of it in what it returns. Invariant: before a command is
timed, what earlier ones wrote is on the disk, so that nobody pays for another's writing.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tools.tool import ToolError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAUNCHER = Path(__file__).with_name("launch.py")
_MIB = 1 << 20
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one command took.

    Attributes:
        wall_s: From start to end.
        cpu_s: User and system time of the command and all processes below it.
        system_s: What of it the kernel took.
        peak_bytes: The largest resident size that one process of it had.
        engine_s: The part of the time that the tool itself gives to the work, if it says so.
    """

    wall_s: float
    cpu_s: float
    system_s: float
    peak_bytes: int
    engine_s: float | None = None


def run(
    command: list[str],
    environment: dict[str, str],
    scratch: Path,
    cwd: Path | None = None,
    *,
    cold: bool = False,
    reads: Sequence[Path] = (),
) -> tuple[Sample, str]:
    """Run a command to its end and measure it.

    Args:
        command: Its words.
        environment: All of its environment.
        scratch: A directory for what it writes to its outputs.
        cwd: Where it runs, if that matters.
        cold: Let the kernel forget first what it has read.
        reads: Directories that the kernel is to know by heart, unless it is cold.

    Returns:
        What it took, and what it wrote to its standard output.

    Raises:
        ToolError: Its exit status was not 0.
    """
    os.sync()
    if cold:
        forget()
    else:
        for directory in reads:
            warm(directory)
    result, output, errors = (scratch / name for name in ("result", "output", "errors"))
    launcher = [sys.executable, "-I", "-S", os.fspath(_LAUNCHER)]
    places = [os.fspath(one) for one in (result, output, errors)]
    status = subprocess.run(
        launcher + places + command, env=environment, cwd=cwd, check=False
    ).returncode
    said = output.read_text(errors="replace") if output.exists() else ""
    if status != 0:
        words = errors.read_text(errors="replace") if errors.exists() else ""
        program = os.path.basename(command[0])
        raise ToolError(f"{program} ended with {status}: {(words or said).strip()[-600:]}")
    return Sample(**json.loads(result.read_text())), said


def warm(root: Path) -> None:
    """Read every byte once, so that no tool pays for the disk that another one spared.

    Once in the beginning would not do: virtual machines lose pages that nobody used for seconds.
    """
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with open(path, "rb", buffering=0) as stream:
                    while stream.read(_MIB):
                        pass


def can_be_cold() -> bool:
    """Whether this process may make the kernel forget what it has read."""
    return os.access(_DROP_CACHES, os.W_OK)


def forget() -> None:
    """Have the kernel forget what it has read and what is on the disk by now."""
    _DROP_CACHES.write_text("3\n")


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    total = 0
    for above, _, names in os.walk(directory):
        total += sum(os.lstat(os.path.join(above, name)).st_size for name in names)
    return total


def machine(work: Path) -> dict[str, Any]:
    """Describe the machine without naming it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / (1 << 30)),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "file_system": _file_system(work),
        "python": platform.python_version(),
    }


def load() -> float:
    """How many processes wanted to run, on the average of the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.machine()


def _file_system(path: Path) -> str:
    """The type of the mount that a path is on: the one with the longest matching directory."""
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return "unknown"
    found = ("", "unknown")
    for line in lines:
        _, place, kind = line.split()[:3]
        inside = path.is_relative_to(place)
        if inside and len(place) >= len(found[0]):
            found = (place, kind)
    return found[1]
