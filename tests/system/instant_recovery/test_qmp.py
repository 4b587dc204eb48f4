"""A QEMU machine that runs from its image: a real guest, begun, moved and thrown away."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import reading_guest
from tests.kit.asking import ended, recovery_of
from tests.kit.disk_images import needs_qemu
from tests.kit.guest import build, needs_guest
from tests.kit.reading_guest import READY, counted
from tests.kit.served import served, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.command import Command

pytestmark = [needs_qemu, needs_guest]

UUID = "11111111-2222-3333-4444-555555555555"
POLICY = """
[[policy]]
name = "vms"
type = "machines"
active = false
machines = {query = "*", quiesce = "no"}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


class Estate:
    """A directory of QEMU machines, with one whose guest reads and writes."""

    def __init__(self, directory: Path, pieces: int = reading_guest.PIECES, stride: int = 37):
        self.run = directory / "run"
        self.run.mkdir(parents=True)
        self.log = directory / "console"
        kernel, initrd = build(directory, reading_guest.init(pieces, stride))
        size = max(64 << 20, 2 * pieces * reading_guest.PIECE)
        self.disk = reading_guest.disk(directory / "web.qcow2", size, pieces)
        self.words = ["qemu-system-x86_64", "-accel", "tcg", "-m", "192", "-nodefaults"]
        self.words += ["-display", "none", "-no-reboot", "-name", "web", "-uuid", UUID]
        self.words += ["-kernel", str(kernel), "-initrd", str(initrd)]
        self.words += ["-append", "console=ttyS0 quiet panic=1"]
        self.words += ["-chardev", f"file,id=s0,path={self.log}", "-serial", "chardev:s0"]
        self.words += ["-qmp", f"unix:{self.run}/web.qmp,server=on,wait=off"]
        self.words += ["-drive", f"if=none,id=d0,file={self.disk},format=qcow2"]
        self.words += ["-device", "virtio-blk-pci,drive=d0,id=vda"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL)
        self.count_on(3)

    def end(self) -> None:
        if self.process is not None:
            self.process.terminate()  # it takes its monitor's socket away
            self.process.wait(60)
        for path in self.run.rglob("pid"):
            with contextlib.suppress(ValueError, ProcessLookupError):
                import os

                os.kill(int(path.read_text()), signal.SIGKILL)

    def count_on(self, more: int = 5) -> None:
        """Wait until the guest has counted so much further."""
        begun = counted(self.log)
        until(lambda: counted(self.log) >= begun + more, "the guest to count", 180)


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path / "kvm")
    made.start()
    try:
        yield made
    finally:
        made.end()


def back_up(site: Command, estate: Estate, tmp_path: Path) -> str:
    """Back the machine up and end it; its image."""
    (tmp_path / "policy.toml").write_text(POLICY)
    site("hypervisor", "add", "kvm1", "--kind", "qmp", "--at", str(estate.run)).assert_ok()
    site("policy", "apply", str(tmp_path / "policy.toml"), "--yes").assert_ok()
    job = site("policy", "run", "vms", "--json").assert_ok().json()["job"]
    done = ended(site, job)
    assert done["outcome"].startswith("completed"), site("events", str(job)).text
    estate.end()
    estate.log.unlink()
    site("hypervisor", "discover", "kvm1").assert_ok()
    return str(site("images", "--json").json_lines()[0]["id"])


def shown(site: Command, number: int = 1) -> dict[str, Any]:
    return recovery_of(site, number)


def await_state(site: Command, *states: str, number: int = 1) -> dict[str, Any]:
    last: dict[str, Any] = {}

    def look() -> bool:
        last.update(shown(site, number))
        assert last["state"] in states or last["state"] != "failed", last
        return last["state"] in states

    try:
        until(look, f"{states}", 180)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from error
    return last


def begin(site: Command, image: str, *words: str) -> int:
    made = site("instant", image, "--to", "kvm1", *words, "--json").assert_ok().json()
    return int(made["id"])


def files_of(estate: Estate) -> set[str]:
    left = (one for one in estate.run.rglob("*") if one.suffix != ".qmp")
    return {str(one.relative_to(estate.run)) for one in left}


def test_a_machine_runs_from_its_image_and_becomes_its_own(
    site: Command, estate: Estate, tmp_path: Path
) -> None:
    with served(site) as running:
        image = back_up(site, estate, tmp_path)
        number = begin(site, image)
        await_state(site, "running")
        until(lambda: READY in reading_guest.said(estate.log), "the guest", 180)
        estate.count_on()
        (overlay,) = (estate.run / "web").glob("*.qcow2")
        words = ["qemu-img", "info", "-U", "--output=json", str(overlay)]
        backing = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
        named = re.search(r'"path": "([^"]+)"', backing["backing-filename"])
        assert named
        served_at = Path(named[1])
        assert served_at.exists()
        # As long as it runs from it, its image stays.
        site("expire", image).assert_failed(2, "is held")
        listed = site("instant", "list", "--json").assert_ok().json_lines()
        assert [(one["id"], one["name"], one["state"]) for one in listed] == [
            (number, "web", "running")
        ]
        assert "running" in site("instant", "list").assert_ok().text
        site("gc").assert_ok()
        estate.count_on()
        job = int(site("instant", "migrate", str(number)).assert_ok().text)
        assert ended(site, job)["outcome"] == "completed"
        await_state(site, "own")
        until(lambda: shown(site)["ended_at"], "the end to be noted")
        own = shown(site)
        serve = ended(site, own["serve_job"])
        assert serve["outcome"] == "completed", site("events", str(own["serve_job"])).text
        estate.count_on()
        assert not served_at.exists()
        site("instant", "migrate", str(number)).assert_failed(2, "has ended")
        site("instant", "discard", str(number)).assert_failed(2, "has ended")
        assert site("instant", "list", "--json").assert_ok().json_lines() == []
        running.stop()
    # Nobody serves any more, and it goes on; what it wrote, and what it did not, is on its disk.
    estate.count_on()
    far = counted(estate.log)
    estate.end()
    (own_disk,) = (estate.run / "web").glob("*.qcow2")
    counter, data = reading_guest.content_of(str(own_disk), "qcow2", tmp_path)
    assert counter >= far
    assert data == (tmp_path / "kvm" / "web-content" / "data").read_bytes()


def test_a_guest_goes_on_over_a_killed_master_and_stands_still_over_a_long_absence(
    site: Command, estate: Estate, tmp_path: Path
) -> None:
    with served(site) as running:
        image = back_up(site, estate, tmp_path)
        number = begin(site, image)
        await_state(site, "running")
        until(lambda: READY in reading_guest.said(estate.log), "the guest", 180)
        estate.count_on()
        running.kill()
    with served(site) as running:
        await_state(site, "running")
        estate.count_on(20)
        running.kill()
    # Longer than reads wait: the guest does not see an error, it stands still.
    time.sleep(30)
    before = counted(estate.log)
    time.sleep(3)
    assert counted(estate.log) == before
    with served(site) as running:
        await_state(site, "running")
        estate.count_on(20)
        # Killed while it moves: it goes on where it was.
        job = int(site("instant", "migrate", str(number)).assert_ok().text)
        running.kill()
    with served(site) as running:
        done = ended(site, job)
        assert done["outcome"].startswith("completed"), site("events", str(job)).text
        await_state(site, "own")
        estate.count_on()
        running.stop()


def test_what_is_discarded_leaves_nothing(site: Command, estate: Estate, tmp_path: Path) -> None:
    with served(site) as running:
        image = back_up(site, estate, tmp_path)
        before = files_of(estate)
        number = begin(site, image, "--new-identity", "--name", "web-test", "--no-network")
        await_state(site, "running")
        until(lambda: READY in reading_guest.said(estate.log), "the guest", 180)
        estate.count_on()
        refused = site("instant", image, "--to", "kvm1", "--name", "web-test", "--new-identity")
        refused.assert_failed(2, "web-test")
        job = int(site("instant", "discard", str(number)).assert_ok().text)
        running.kill()
    with served(site) as running:
        assert ended(site, job)["outcome"] == "completed", site("events", str(job)).text
        await_state(site, "discarded")
        assert files_of(estate) == before
        held = site("images", "--json").json_lines()[0]
        site("expire", image).assert_ok()
        assert held["id"] == image
        running.stop()


def test_what_can_not_be_is_told_in_words(
    site: Command, estate: Estate, tmp_path: Path, tree: Path
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    shutil.copy(estate.disk, shelf / "other.qcow2")
    with served(site) as running:
        image = back_up(site, estate, tmp_path)
        site("backup", str(tree)).assert_ok()
        files = next(
            one["id"] for one in site("images", "--json").json_lines() if one["id"] != image
        )
        add = ("hypervisor", "add", "shelf", "--kind", "diskfiles", "--at", str(shelf))
        site(*add).assert_ok()
        site("instant", files, "--to", "kvm1").assert_failed(64, "is of files")
        site("instant", image, "--to", "shelf").assert_failed(2, "can't run a machine")
        site("instant", image, "--to", "nowhere").assert_failed(2, "nowhere")
        site("instant", "show", "77").assert_failed(2, "no instant recovery 77")
        site("instant", "migrate", "77").assert_failed(2, "no instant recovery 77")
        estate.start()
        site("hypervisor", "discover", "kvm1").assert_ok()
        site("instant", image, "--to", "kvm1", "--name", "b").assert_failed(2, "of this uuid")
        new = ("--new-identity", "--name", "web")
        site("instant", image, "--to", "kvm1", *new).assert_failed(2, "'web' already")
        # What can't be begun leaves nothing, and its image is held no more.
        before = files_of(estate)
        made = begin(site, image, "--new-identity", "--name", "c", "--storage", "no/place")
        failed = await_state(site, "failed", number=made)
        assert "is no place for disks" in failed["error"]
        assert files_of(estate) == before
        site("expire", image).assert_ok()
        running.stop()
