"""How busy a machine is, as its kernel tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.movers.machine_load import MachineLoad


class Kernel:
    """What a kernel tells, in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_s = 100.0

    def put(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def tell(self, *, busy: int, idle: int, disk_ms: int, received: int, sent: int) -> None:
        self.put("proc/stat", f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8\n")
        self.put("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n")
        self.put(
            "proc/diskstats",
            f"   8 0 sda 1 2 3 4 5 6 7 8 0 {disk_ms} 9 0 0 0 0 0 0\n"
            f"   7 0 loop0 1 2 3 4 5 6 7 8 0 {disk_ms * 9} 9 0 0 0 0 0 0\n"
            "   8 1 sdb 1 2 3 4 5 6 7 8 0 0 9 0 0 0 0 0 0\n",
        )
        counts = f"{received} 0 0 0 0 0 0 0 {sent} 0 0 0 0 0 0 0"
        self.put("proc/net/dev", f"Inter-| Receive\n face |bytes\n eth0: {counts}\n lo: {counts}\n")
        self.put("sys/class/net/eth0/speed", "1000\n")

    def load(self) -> MachineLoad:
        return MachineLoad(self.root, lambda: self.now_s)


def test_what_was_used_since_the_last_time_counts(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.tell(busy=1000, idle=1000, disk_ms=5000, received=0, sent=0)
    load = kernel.load()
    kernel.now_s += 10
    kernel.tell(busy=1300, idle=1100, disk_ms=9000, received=125_000_000, sent=625_000_000)
    assert load() == pytest.approx({"cpu": 0.75, "memory": 0.75, "disk": 0.4, "network": 0.5})
    kernel.now_s += 10
    kernel.tell(busy=1300, idle=3100, disk_ms=9000, received=125_000_000, sent=625_000_000)
    assert load() == pytest.approx({"cpu": 0.0, "memory": 0.75, "disk": 0.0, "network": 0.0})


def test_nothing_is_more_than_all(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.tell(busy=0, idle=0, disk_ms=0, received=0, sent=0)
    load = kernel.load()
    kernel.now_s += 1
    kernel.tell(busy=100, idle=0, disk_ms=60_000, received=10**12, sent=0)
    assert load() == pytest.approx({"cpu": 1.0, "memory": 0.75, "disk": 1.0, "network": 1.0})


@pytest.mark.parametrize("text", ["", "\0", "cpu\n", "cpu x\n"])
def test_what_is_not_told_is_left_out(tmp_path: Path, text: str) -> None:
    kernel = Kernel(tmp_path)
    load = kernel.load()
    kernel.now_s += 1
    if text != "cpu x\n":
        kernel.put("proc/stat", text)
    kernel.put("proc/meminfo", text)
    kernel.put("proc/net/dev", text)
    assert load() == {}


def test_this_machine_tells() -> None:
    said = MachineLoad()()
    assert "memory" in said
    assert all(0 <= value <= 1 for value in said.values())
