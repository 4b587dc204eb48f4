"""How busy a machine is: processors, memory, disks, networks; 1 stands for all that there is.

Must not judge. What the kernel does not tell is left out. Shapes of ``/proc/stat``,
``/proc/meminfo``, ``/proc/diskstats``, ``/proc/net/dev`` and ``/sys/class/net/*/speed``: proc(5)
and the kernel's Documentation/ABI.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BITS_OF_MBIT = 1e6 / 8


class MachineLoad:
    """Tells how busy a machine was since it was last asked. Belongs to one thread."""

    def __init__(self, root: Path = Path("/"), now_s: Callable[[], float] = time.monotonic) -> None:
        """Begin to look.

        Args:
            root: Where ``proc`` and ``sys`` are.
            now_s: A clock that only goes forward, in seconds.
        """
        self._root = root
        self._now_s = now_s
        self._at_s = now_s()
        self._before = self._counts()

    def __call__(self) -> dict[str, float]:
        """``cpu``, ``memory``, ``disk``, ``network``: the busiest disk and interface count."""
        now_s, counts = self._now_s(), self._counts()
        passed_s = now_s - self._at_s
        said: dict[str, float] = {}
        memory = self._memory()
        if memory is not None:
            said["memory"] = memory
        if passed_s > 0:
            said |= _busy(self._before, counts, passed_s)
            self._at_s, self._before = now_s, counts
        return {name: min(max(value, 0.0), 1.0) for name, value in said.items()}

    def _counts(self) -> dict[str, float]:
        """What has been used up so far: ``cpu`` in seconds, and so on, by name."""
        return {**self._cpu(), **self._disks(), **self._networks()}

    def _cpu(self) -> dict[str, float]:
        first = self._lines("proc/stat")[:1]
        for name, *ticks in (line.split() for line in first):
            if name == "cpu" and len(ticks) >= 5:
                used = [int(one) for one in ticks[:8]]
                idle = used[3] + used[4]
                return {"cpu": float(sum(used) - idle), "cpu all": float(sum(used))}
        return {}

    def _disks(self) -> dict[str, float]:
        """Seconds in which each was at work."""
        found = {}
        for words in (line.split() for line in self._lines("proc/diskstats")):
            if len(words) >= 13 and not words[2].startswith(("loop", "ram", "zram")):
                found[f"disk {words[2]}"] = int(words[12]) / 1000
        return found

    def _networks(self) -> dict[str, float]:
        """Seconds that what went over each takes at its speed, the way on which more went."""
        found = {}
        for line in self._lines("proc/net/dev"):
            name, _, counts = line.partition(":")
            words = counts.split()
            speed = self._speed(name.strip())
            if len(words) >= 9 and speed is not None:
                for way, count in (("in", words[0]), ("out", words[8])):
                    found[f"network {name.strip()} {way}"] = int(count) / speed
        return found

    def _speed(self, interface: str) -> float | None:
        """Bytes a second."""
        try:
            mbit = int((self._root / "sys/class/net" / interface / "speed").read_text())
        except (OSError, ValueError):
            return None
        return mbit * _BITS_OF_MBIT if mbit > 0 else None

    def _memory(self) -> float | None:
        known = dict(line.split(":", 1) for line in self._lines("proc/meminfo") if ":" in line)
        try:
            total, free = (int(known[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        except (KeyError, ValueError, IndexError):
            return None
        return 1 - free / total if total > 0 else None

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._root / name).read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            return []


def _busy(
    before: Mapping[str, float], after: Mapping[str, float], passed_s: float
) -> dict[str, float]:
    said: dict[str, float] = {}
    spent = {name: value - before[name] for name, value in after.items() if name in before}
    if spent.get("cpu all"):
        said["cpu"] = spent["cpu"] / spent["cpu all"]
    for kind in ("disk", "network"):
        parts = [value / passed_s for name, value in spent.items() if name.startswith(f"{kind} ")]
        if parts:
            said[kind] = max(parts)
    return said
