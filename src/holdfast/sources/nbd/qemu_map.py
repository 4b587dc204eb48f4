"""What `qemu-img map` says of where a disk's content lies, handed to the engine as it is said.

Must not look at a range: a disk may have millions. Invariants: nothing is believed of a map that
did not come to its end; the program ends with the call.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import InputOutput, TooSlow
from holdfast.engine import DiskMap
from holdfast.sources import supervised
from holdfast.sources.nbd.qemu_errors import true_cause
from holdfast.sources.nbd.qemu_nbd import plain_environment, program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from pathlib import Path
    from typing import IO

    from holdfast.sources.nbd.qemu_nbd import Node

_TIMEOUT_S = 3600.0
_ASK_EVERY_S = 0.5
_END_S = 60.0
_LOG_BYTES = 64 * 1024
_NOBODY_LISTENS = 128 + signal.SIGPIPE


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """The files of a disk, or of one that it lies over.

    Attributes:
        parts: One after the other, each with how many bytes of the disk it has; None for zeroes.
            Without any, nothing of the layer is read in a file.
        slack: How far content may lie beyond the end of its file, where it reads as zeroes; None
            for as far as it likes.
    """

    parts: tuple[tuple[Path | None, int], ...]
    slack: int | None


def read_map(
    node: Node,
    what: str,
    size: int,
    layers: Sequence[LayerFiles],
    alive: Callable[[], None] = lambda: None,
    timeout_s: float = _TIMEOUT_S,
) -> DiskMap:
    """Have the engine read where a disk's content lies.

    The disk may be open elsewhere: whoever reads it by the map keeps others from writing.

    Args:
        node: The disk, see `image_node`.
        what: Its name in messages.
        size: Of it, in bytes.
        layers: Itself, and those that it lies over.
        alive: Called while that takes time; what it raises ends it.
        timeout_s: How long it may take.

    Raises:
        HoldfastError: The disk's tables are damaged, or qemu says what is not understood.
    """
    files: dict[Path, int] = {}
    for layer in layers:
        for path, _ in layer.parts:
            if path is not None:
                files.setdefault(path, len(files))
    told = [
        ([(None if path is None else files[path], covers) for path, covers in one.parts], one.slack)
        for one in layers
    ]
    command = [program("qemu-img"), "map", "-U", "--output=json", f"json:{json.dumps(node)}"]
    with tempfile.TemporaryFile() as log, ThreadPoolExecutor(1) as thread:
        said, other = os.pipe()
        with open(said, "rb", buffering=0) as ours:
            try:
                process = supervised.begin(command, plain_environment(), stdout=other, stderr=log)
            finally:
                os.close(other)
            reading = thread.submit(
                DiskMap.read, said, size=size, files=[str(one) for one in files], layers=told
            )
            try:
                _wait(reading, what, alive, timeout_s)
                # Where the engine refused what was said, nobody listens any more: it ends, too.
                ours.close()
                _refuse_failed(process, log, what)
            finally:
                # What is said ends with it, and so does the engine's reading.
                supervised.end(process)
                wait([reading])
        return reading.result()


def _wait(reading: Future[DiskMap], what: str, alive: Callable[[], None], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while not wait([reading], _ASK_EVERY_S).done:
        alive()
        if time.monotonic() > until:
            raise TooSlow(
                f"qemu-img was not done with {what} within {timeout_s:g} seconds",
                hint="see whether the storage that it lies on answers",
            )


def _refuse_failed(process: subprocess.Popen[bytes], log: IO[bytes], what: str) -> None:
    """Tell why the program failed, if it was not for nobody listening to it."""
    status = process.wait(_END_S)
    log.seek(0)
    if status and (said := log.read(_LOG_BYTES).decode(errors="replace").strip()):
        raise true_cause(said, what)
    if status not in (0, _NOBODY_LISTENS):
        raise InputOutput(
            f"qemu-img ended with status {status} while it looked at {what}",
            hint="the system's log may tell whether it was killed, for example for lack of memory",
        )
