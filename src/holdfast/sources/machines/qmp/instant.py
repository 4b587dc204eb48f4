"""QEMU machines that run from their image: begun, moved onto disks of their own, thrown away.

Must not serve the image. Invariants: what a machine was given for the time that it needs its image
(to stand still where a disk can't be read) is on its command line only for that time; what is not
over the socket that it is said to be over is left alone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import (
    HoldfastError,
    HypervisorError,
    HypervisorRefused,
    MachineMissing,
    TooSlow,
)
from holdfast.sources.machines import overlays
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.new_disks import NewDisk
from holdfast.sources.machines.overlays import Moved, Over, Standing
from holdfast.sources.machines.qmp import rebuild
from holdfast.sources.machines.qmp.devices import Device, devices
from holdfast.sources.machines.qmp.disk_words import with_disk
from holdfast.sources.nbd.qemu_nbd import run_img

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.sources.machines.machine import Disk
    from holdfast.sources.machines.provider import DiskTarget, NewMachine, Part
    from holdfast.sources.machines.qmp.monitor import Monitor

    Alive = Callable[[], None]

_JOB = "holdfast-move-"
_NODE = "holdfast-moved-"
_LOOK_S = 0.2
_AGAIN_S = 5.0
_END_S = 60.0
_STUCK = "io-error"
_STAND_STILL = [
    word
    for driver in ("virtio-blk-device", "scsi-hd", "ide-hd")
    for option in ("rerror", "werror")
    for word in ("-global", f"{driver}.{option}=stop")
]


class Startable:
    """The file that says how a machine is started; see `rebuild`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, Any] = json.loads(path.read_text())

    @property
    def uuid(self) -> str:
        """Of the machine."""
        return str(self.kept["uuid"])

    @property
    def directory(self) -> Path:
        """Where its disks are."""
        return Path(self.kept["directory"])

    def write(self, words: list[str]) -> None:
        """Have it started by these words from now on."""
        self.kept["words"] = words
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self.kept, indent=1))
        unfinished.replace(self.path)

    def needs(self, over: Over) -> tuple[str, ...]:
        """Its disks that lie over served ones, as their files say."""
        found = sorted(self.directory.glob("*.qcow2"))
        return tuple(one.stem for one in found if overlays.reads_from(one, over.socket))


def startable(monitors: Path, over: Over) -> Startable | None:
    """How a machine is started, if it was made here."""
    path = monitors / f"{over.name}{rebuild.ENDING}"
    if not path.exists():
        return None
    found = Startable(path)
    return found if found.uuid == over.uuid else None


def prepare(order: NewMachine, over: Over, monitors: Path) -> None:
    """Make a machine's overlays and the file by which it is started; both may be there.

    Raises:
        AlreadyExists: There is another machine of its name.
        HoldfastError: It can't be made; nothing of it stays.
    """
    found = startable(monitors, over)
    if found is None:
        _clear(over, monitors)
        rebuild.restore(order, _nobody_writes, monitors, overlays.maker(over.socket))
        found = startable(monitors, over)
        if found is None:
            raise HypervisorError(f"machine '{over.name}' is gone just after it was made")
    words = [str(one) for one in found.kept["words"]]
    if _STAND_STILL[1] not in words:
        found.write([words[0], *_STAND_STILL, *words[1:]])


def forget(over: Over, monitors: Path) -> None:
    """Take away the files of a machine that does not run: all, or what is left of them."""
    found = startable(monitors, over)
    directory = _clear(over, monitors) if found is None else found.directory
    if found is None:
        return
    shutil.rmtree(directory, ignore_errors=True)
    for ending in (".qmp", ".qga"):
        (monitors / f"{over.name}{ending}").unlink(missing_ok=True)
    found.path.unlink()


def off(found: Startable | None, over: Over) -> Standing:
    """How it is with a machine that does not run.

    Raises:
        MachineMissing: There is none.
    """
    if found is None:
        raise MachineMissing(f"machine '{over.name}' ({over.uuid}) is gone")
    return Standing(State.OFF, found.needs(over))


def standing(monitor: Monitor, over: Over) -> Standing:
    """How it is with a machine that runs."""
    status = str(monitor.execute("query-status")["status"])
    needs = tuple(one.disk.name for one in devices(monitor) if _needs(monitor, one, over))
    state = State.RUNNING if status == "running" else State.PAUSED
    return Standing(state, needs, stuck=status == _STUCK)


def go_on(monitor: Monitor) -> None:
    """Have it go on, if it stands still for want of a disk."""
    if monitor.execute("query-status")["status"] == _STUCK:
        monitor.execute("cont")


def end(monitor: Monitor) -> None:
    """End the machine, and wait for that.

    Raises:
        TooSlow: It does not end.
    """
    pid = monitor.peer_pid()
    with contextlib.suppress(HoldfastError):
        monitor.execute("quit")
    until_s = time.monotonic() + _END_S
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > until_s:
            raise TooSlow(f"QEMU at '{monitor.path}' does not end")
        time.sleep(_LOOK_S)


def move(
    monitor: Monitor,
    found: Startable,
    over: Over,
    moved: Callable[[Moved], None],
    alive: Alive,
) -> None:
    """Bring what is read from the image into the machine's own disks, all of them at once.

    Raises:
        HypervisorError: It stopped before its end.
    """
    done: dict[str, tuple[int, int]] = {}
    for one in devices(monitor):
        if _needs(monitor, one, over):
            done[f"{_JOB}{one.disk.name}"] = 0, one.disk.size
            _begin(monitor, one, found, over)
    _follow(monitor, done, moved, alive)
    left = standing(monitor, over).needs
    if left:
        raise overlays.still_needed(over, left)
    settle(monitor, found)


def settle(monitor: Monitor, found: Startable) -> None:
    """Have the machine start from its own disks from now on, and nothing else; may be done again.

    `monitor` is that of the machine, which needs its image no more.
    """
    words = [str(one) for one in found.kept["words"]]
    if words[1 : 1 + len(_STAND_STILL)] == _STAND_STILL:
        words = [words[0], *words[1 + len(_STAND_STILL) :]]
    stale = []
    for one in devices(monitor):
        path = Path(one.disk.place)
        before = path.with_suffix(".qcow2")
        if one.driver == "raw" and path.suffix == ".raw" and path.parent == found.directory:
            if any(str(before) in word for word in words):
                words = with_disk(words, _new(one.disk, path), str(before), "qcow2")
            stale.append(before)
    found.write(words)
    for path in stale:
        path.unlink(missing_ok=True)


def _new(disk: Disk, path: Path) -> NewDisk:
    return NewDisk(disk, path, "raw")


def _begin(monitor: Monitor, device: Device, found: Startable, over: Over) -> None:
    """Begin to move a disk, unless that is under way."""
    job = f"{_JOB}{device.disk.name}"
    for known in monitor.execute("query-jobs"):
        if known["id"] == job:
            if known["status"] != "concluded":
                return
            monitor.execute("job-dismiss", {"id": job})
    given: dict[str, Any] = {"job-id": job, "device": device.node}
    if over.format == "qcow2":
        # It goes away by itself. While one that has ended is there still, QEMU crashes when anybody
        # asks for all of its block nodes (since 6.0: gitlab.com/qemu-project/qemu/-/issues/3149).
        monitor.execute("block-stream", {**given, "on-error": "stop"})
        return
    node = f"{_NODE}{device.disk.name}"
    path = found.directory / f"{device.disk.name}.raw"
    with contextlib.suppress(HypervisorRefused):
        monitor.execute("blockdev-del", {"node-name": node})  # of a move that stopped
    run_img(["create", "-q", "-f", "raw", str(path), str(device.disk.size)], f"'{path}'")
    file = {"driver": "file", "filename": str(path), "discard": "unmap"}
    target = {"driver": "raw", "node-name": node, "file": file, "discard": "unmap"}
    monitor.execute("blockdev-add", target)
    given |= {"target": node, "sync": "full"}
    given |= {"on-source-error": "stop", "on-target-error": "report", "auto-dismiss": False}
    monitor.execute("blockdev-mirror", given)


def _follow(
    monitor: Monitor,
    done: dict[str, tuple[int, int]],
    moved: Callable[[Moved], None],
    alive: Alive,
) -> None:
    """Wait for the moves, and have each that waits go on; `done` is how far each is."""
    errors: list[str] = []
    again_s = 0.0
    while True:
        ours = [one for one in monitor.execute("query-jobs") if str(one["id"]).startswith(_JOB)]
        for name in done.keys() - {str(one["id"]) for one in ours}:
            done[name] = (done[name][1],) * 2
        for one in ours:
            name, status = str(one["id"]), one["status"]
            done[name] = int(one["current-progress"]), int(one["total-progress"])
            if status == "concluded":
                if one.get("error"):
                    errors.append(f"{name.removeprefix(_JOB)}: {one['error']}")
                monitor.execute("job-dismiss", {"id": name})
            elif status == "ready":
                monitor.execute("job-complete", {"id": name})
            elif status == "paused" and time.monotonic() > again_s:
                # It could not read; the image may be served again by now.
                again_s = time.monotonic() + _AGAIN_S
                with contextlib.suppress(HypervisorRefused):
                    monitor.execute("block-job-resume", {"device": name})
        moved(Moved(sum(one for one, _ in done.values()), sum(all_ for _, all_ in done.values())))
        if not ours:
            break
        alive()
        time.sleep(_LOOK_S)
    if errors:
        raise HypervisorError(f"the move stopped: {'; '.join(errors)}")


def _needs(monitor: Monitor, device: Device, over: Over) -> bool:
    """Whether a disk reads from the image still: what it stands on, in QEMU's own words."""
    for block in monitor.execute("query-block"):
        if str(block.get("qdev", "")) == device.path and block.get("inserted"):
            return overlays.names(_places(block["inserted"]["image"]), over.socket)
    return False


def _places(image: dict[str, Any]) -> str:
    """The files that an image stands on, each as QEMU names it."""
    text = f"{image.get('filename', '')} {image.get('backing-filename', '')}"
    below = image.get("backing-image")
    return text if below is None else f"{text} {_places(below)}"


def _clear(over: Over, monitors: Path) -> Path:
    """Take away the overlays of a beginning that came to no machine."""
    directory = rebuild.directory_of(over.storage, over.name, monitors)
    for path in monitors.glob(f"{over.name}.unfinished"):
        path.unlink()
    if directory.is_dir():
        overlays.remove_all(directory, over, "*")
        left = {one.name for one in directory.iterdir()}
        if left <= {rebuild.VARIABLES}:
            shutil.rmtree(directory)
    return directory


def _nobody_writes(_disk: Disk, _target: DiskTarget, _part: Part, /) -> None:
    raise HypervisorError("a disk over another is not written")
