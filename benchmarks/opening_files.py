"""Open and read small files by plain calls, and by ``io_uring``.

    python benchmarks/opening_files.py [--files 20000] [--rounds 5] [--cold] [--json FILE]

Files of 1 to 6 KiB, a dozen in a directory, made below a temporary directory. As many processes as
there are processors share them; each opens, reads and closes its files, in turns by plain calls, by
plain calls with an `fstat` as well, as a backup does, and by chains of the same three requests in
an ``io_uring`` of its own, 128 files at a time, with direct descriptors. All that Python has to
build is built before the clock starts, but plain calls are made by Python: seconds of the user are
its own, and what counts of processors are the system's. ``--cold`` has the kernel forget before
each turn, which takes root and slows everything else on the machine.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import random
import resource
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks import measure  # noqa: E402 - the path comes first

SETUP, ENTER, REGISTER = 425, 426, 427
REGISTER_FILES, GET_EVENTS = 2, 1
OPENAT, CLOSE, READ = 18, 19, 22
FIXED_FILE, HARD_LINK = 1, 8
AT_RINGS, AT_REQUESTS = 0, 0x1000_0000
SINGLE_MAP = 1
TOGETHER = 128
ENTRIES = 512
ROOM = 8192
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *words: object) -> int:
    """A call of the kernel.

    Raises:
        OSError: It refused.
    """
    done = int(libc.syscall(number, *words))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


class Ring:
    """An ``io_uring`` that opens, reads and closes some files at a time."""

    def __init__(self, directory: int, names: Sequence[bytes]) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._fd = call(SETUP, ENTRIES, parameters)
        words = struct.unpack("10I 10I 10I", parameters.raw)
        if words[0] != ENTRIES or not words[5] & SINGLE_MAP:
            raise OSError("this kernel's io_uring is too old")
        sent, answered = words[10:20], words[20:30]
        size = max(sent[6] + 4 * words[0], answered[5] + 16 * words[1])
        self._rings = mmap.mmap(self._fd, size, offset=AT_RINGS)
        self._requests = mmap.mmap(self._fd, ENTRIES * 64, offset=AT_REQUESTS)
        self._tail, self._places = sent[1], sent[6]
        self._answer_head, self._answer_tail, self._answers = answered[0], answered[1], answered[5]
        self._answer_mask = words[1] - 1
        none = (ctypes.c_int32 * TOGETHER)(*([-1] * TOGETHER))
        call(REGISTER, self._fd, REGISTER_FILES, none, TOGETHER)
        self._room = ctypes.create_string_buffer(TOGETHER * ROOM)
        self._names = [ctypes.create_string_buffer(name) for name in names]
        groups = [self._names[at : at + TOGETHER] for at in range(0, len(names), TOGETHER)]
        self._batches = [self._batch(directory, group) for group in groups]

    def _batch(self, directory: int, names: Sequence[ctypes.Array[ctypes.c_char]]) -> bytes:
        room = ctypes.addressof(self._room)
        made = bytearray()
        for slot, name in enumerate(names):
            made += _request(
                OPENAT, HARD_LINK, directory, ctypes.addressof(name), 0, FLAGS, slot + 1
            )
            made += _request(READ, FIXED_FILE | HARD_LINK, slot, room + slot * ROOM, ROOM, 0, 0)
            made += _request(CLOSE, 0, 0, 0, 0, 0, slot + 1)
        return bytes(made)

    def run(self) -> int:
        """Read all files; their bytes."""
        total = sent = 0
        for batch in self._batches:
            count = len(batch) // 64
            self._requests[: len(batch)] = batch
            for at in range(count):
                place = self._places + (sent + at) % ENTRIES * 4
                self._rings[place : place + 4] = at.to_bytes(4, "little")
            sent += count
            struct.pack_into("<I", self._rings, self._tail, sent & 0xFFFF_FFFF)
            call(ENTER, self._fd, count, count, GET_EVENTS, None, 0)
            total += self._take(count)
        return total

    def _take(self, count: int) -> int:
        (head,) = struct.unpack_from("<I", self._rings, self._answer_head)
        (tail,) = struct.unpack_from("<I", self._rings, self._answer_tail)
        if tail - head != count:
            raise OSError(f"{tail - head} answers to {count} requests")
        total = 0
        for at in range(head, tail):
            place = self._answers + (at & self._answer_mask) * 16
            opcode, done = struct.unpack_from("<Qi", self._rings, place)
            if done < 0:
                raise OSError(-done, os.strerror(-done))
            total += done if opcode == READ else 0
        struct.pack_into("<I", self._rings, self._answer_head, tail)
        return total


def _request(
    opcode: int, flags: int, fd: int, address: int, length: int, how: int, slot: int
) -> bytes:
    """A request; what answers it says which kind it was."""
    head = struct.pack("<BBHiQQII", opcode, flags, 0, fd, 0, address, length, how)
    return (head + struct.pack("<QHHI", opcode, 0, 0, slot)).ljust(64, b"\0")


def plain(directory: int, names: Sequence[bytes], *, look: bool) -> Callable[[], int]:
    """Read all files by plain calls."""

    def run() -> int:
        total = 0
        for name in names:
            fd = os.open(name, FLAGS, dir_fd=directory)
            if look:
                os.fstat(fd)
            total += len(os.read(fd, ROOM))
            os.close(fd)
        return total

    return run


WAYS: dict[str, Callable[[int, Sequence[bytes]], Callable[[], int]]] = {
    "plain": lambda directory, names: plain(directory, names, look=False),
    "plain, fstat": lambda directory, names: plain(directory, names, look=True),
    "io_uring": lambda directory, names: Ring(directory, names).run,
}


def make(root: Path, count: int) -> tuple[list[bytes], int]:
    """Files; their names, and their bytes in all."""
    made = random.Random(1)
    names, total = [], 0
    for number in range(count):
        directory = root / f"{number // 12:06}"
        directory.mkdir(exist_ok=True)
        size = made.randrange(1024, 6144)
        (directory / f"file-{number % 12}").write_bytes(made.randbytes(size))
        names.append(os.fsencode(f"{number // 12:06}/file-{number % 12}"))
        total += size
    return names, total


def share(way: str, root: Path, names: Sequence[bytes], ready: int, begin: int, tell: int) -> None:
    """What one process does: get ready, wait, read, and tell what it took."""
    work = WAYS[way](os.open(root, os.O_RDONLY | os.O_DIRECTORY), names)
    os.write(ready, b".")
    os.read(begin, 1)
    before = resource.getrusage(resource.RUSAGE_SELF)
    total = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = (after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
    os.write(tell, json.dumps([total, *spent]).encode() + b"\n")


def measured(way: str, root: Path, names: Sequence[bytes], processes: int) -> dict[str, float]:
    """All files, shared by some processes."""
    ready, begin, tell = os.pipe(), os.pipe(), os.pipe()
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                share(way, root, names[number::processes], ready[1], begin[0], tell[1])
                status = 0
            except OSError as error:
                print(f"{way}: {error}", file=sys.stderr)
            finally:
                os._exit(status)
        children.append(child)
    os.close(ready[1])
    os.close(tell[1])
    there = 0
    while there < processes and (some := os.read(ready[0], processes)):
        there += len(some)
    began_s = time.perf_counter()
    os.write(begin[1], b"." * processes)
    ended = [os.waitpid(child, 0)[1] for child in children]
    took_s = time.perf_counter() - began_s
    if any(ended):
        raise SystemExit(f"{way}: a process failed")
    with os.fdopen(tell[0], "rb") as file:
        told = [json.loads(line) for line in file]
    for fd in (ready[0], *begin):
        os.close(fd)
    total, user_s, system_s = (sum(one) for one in zip(*told, strict=True))
    return {"bytes": total, "seconds": took_s, "user_s": user_s, "system_s": system_s}


def main(words: list[str] | None = None) -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description="Open small files in several ways.")
    options.add_argument("--files", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--cold", action="store_true", help="with nothing in memory; as root")
    options.add_argument("--dir", type=Path, help="where the files are made")
    options.add_argument("--json", type=Path, help="where to write the figures, too")
    given = options.parse_args(words)
    if given.cold and not measure.can_be_cold():
        print("the kernel can't be told to forget: run it as root", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(dir=given.dir) as made:
        names, total = make(Path(made), given.files)
        for number in range(given.rounds):
            ways = list(WAYS)
            for way in ways[number % 3 :] + ways[: number % 3]:
                if given.cold:
                    os.sync()
                    measure.forget()
                one = measured(way, Path(made), names, os.cpu_count() or 2)
                if one["bytes"] != total:
                    raise SystemExit(f"{way}: {one['bytes']} bytes of {total}")
                found[way].append(one)
    print(f"{given.files:,} files, {os.cpu_count()} processes, load {load:.1f} before")
    print(f"{'':14} {'seconds':>8} {'user s':>8} {'system s':>9} {'system, beside plain':>21}")
    for way, rounds in found.items():
        middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        ratios = sorted(
            one["system_s"] / max(other["system_s"], 1e-9)
            for one, other in zip(rounds, found["plain"], strict=True)
        )
        print(
            f"{way:14} {middle['seconds']:8.3f} {middle['user_s']:8.3f} {middle['system_s']:9.3f}"
            f" {statistics.median(ratios):8.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )
    if given.json is not None:
        result = {"files": given.files, "processes": os.cpu_count(), "cold": given.cold}
        result |= {"load": [round(load, 1), round(os.getloadavg()[0], 1)], "figures": found}
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
