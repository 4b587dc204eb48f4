"""A real Debian is backed up while it writes, made again beside it, and boots to its login prompt.

By the real site and its commands, at rest by its guest agent, under libvirt and with QEMU alone,
from a disk of another format than it had.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("lxml", reason="lxml is not installed: see the extra 'vm'")

from tests.kit.debian_guest import needs_debian
from tests.kit.debian_machine import (
    Console,
    DebianAlone,
    DebianMachine,
    DebianUnderLibvirt,
    ask_agent,
    reset_by,
    terminal_of,
)
from tests.kit.libvirtd import libvirtd_kit, needs_libvirt
from tests.kit.served import Served, served, until
from tests.system.virtual_machines.test_policy_to_restore import images, run_and_wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.command import Command

pytestmark = [needs_debian, pytest.mark.slow, pytest.mark.timeout(1200)]

BACKUPS = 3
LONG_S = 400.0
POLICY = """
[[policy]]
name = "estate"
type = "machines"
active = false
machines = {{query = "*", quiesce = "require", trim = true, scratch = "{scratch}"}}

[[policy.schedules]]
name = "nightly"
kind = "differential"
every = "20h"
"""


class Again(DebianMachine):
    """What was made of an image with QEMU alone."""

    def __init__(self, run: Path, name: str, uuid: str, storage: Path) -> None:
        self.name = name
        self.uuid = uuid
        self._agent = run / f"{name}.qga"
        self._monitor = run / f"{name}.qmp"
        self._pid = storage / name / "pid"
        self.console = Console(until(lambda: terminal_of(self._monitor), "its monitor"))

    def ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        return ask_agent(self._agent, command, arguments)

    def reset(self) -> None:
        reset_by(self._monitor)

    def kill(self) -> None:
        self.console.close()
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self._pid.read_text()), signal.SIGKILL)


def back_up_under_load(site: Command, machine: DebianMachine, policy: Path) -> list[int]:
    """Back it up several times while it writes; how far it was before each time."""
    site("policy", "apply", policy, "--yes").assert_ok()
    machine.start_load()
    counted = []
    for number in range(BACKUPS):
        machine.put(f"/srv/before-{number}", f"written before backup {number}\n")
        counted.append(machine.counter())
        (done,) = run_and_wait(site, "policy", "run", "estate", patience_s=LONG_S)
        assert done["outcome"] == "completed", site("events", str(done["id"])).text
        said = site("events", str(done["id"])).assert_ok().text
        assert "stood still for" in said
        assert "the guest trimmed 1 of its file systems" in said
    return counted


def make_again(site: Command, image: str, storage: Path, image_format: str) -> str:
    """Make a machine of an image, beside the original, and start it; its uuid."""
    words = ["restore-machine", image, "--to", "host", "--new-identity", "--name", "again"]
    words += ["--format", image_format, "--storage", str(storage), "--start"]
    (done,) = run_and_wait(site, *words, patience_s=LONG_S)
    assert done["outcome"] == "completed", site("events", str(done["id"])).text
    known = site("machines", "--refresh", "--json").assert_ok().json_lines()
    return str(next(one["uuid"] for one in known if one["name"] == "again"))


def assert_as_it_was(machine: DebianMachine, counted: list[int]) -> None:
    print(f"login after {machine.wait_for_login():.1f} s")
    for number in range(BACKUPS):
        said = machine.shell(f"cat /srv/before-{number}")
        assert said == f"written before backup {number}\n"
    assert machine.counter() >= counted[-1]
    assert machine.run("/bin/systemctl", "--failed", "--plain", "--no-legend") == ""


def assert_files_come_back(site: Command, into: Path) -> None:
    """Of each image alone, by path: what was written before it, and nothing that came later."""
    for number, image in enumerate(reversed(images(site)["debian"])):
        back = into / str(number)
        path = f"{image}:/vda/p1/srv/before-{number}"
        site("restore", path, "--to", str(back)).assert_ok()
        (found,) = [one for one in back.rglob("before-*") if one.is_file()]
        assert found.read_text() == f"written before backup {number}\n"
        listed = site("ls", f"{image}:/vda/p1/srv").assert_ok().text
        assert f"before-{number + 1}" not in listed


def live(
    site: Command,
    directory: Path,
    machine: DebianMachine,
    scratch: Path,
    add: tuple[str, ...],
    again: Callable[[str], DebianMachine],
    kill: Callable[[DebianMachine], None],
    storage: Path,
    image_format: str,
) -> None:
    policy = directory / "policy.toml"
    policy.write_text(POLICY.format(scratch=scratch))
    machine.wait_for_login()
    running: Served
    with served(site) as running:
        site("hypervisor", "add", "host", *add).assert_ok()
        counted = back_up_under_load(site, machine, policy)
        known = make_again(site, images(site)["debian"][0], storage, image_format)
        assert known != machine.uuid
        made = again(known)
        try:
            assert_as_it_was(made, counted)
        finally:
            kill(made)
        # The original noticed nothing.
        assert machine.counter() > counted[-1]
        assert_files_come_back(site, directory / "files")
        running.stop()


@needs_libvirt
def test_a_debian_under_libvirt_comes_back_to_its_prompt(site: Command, tmp_path: Path) -> None:
    with libvirtd_kit() as daemon, DebianUnderLibvirt(daemon) as machine:

        def again(known: str) -> DebianMachine:
            made = DebianUnderLibvirt(daemon, known=known)
            made.watch()
            return made

        def kill(made: DebianMachine) -> None:
            assert isinstance(made, DebianUnderLibvirt)
            made.kill()

        add = ("--kind", "libvirt", "--at", daemon.url)
        storage = daemon.directory / "disks"
        live(site, tmp_path, machine, daemon.scratch, add, again, kill, storage, "vmdk")


def test_a_debian_with_qemu_alone_comes_back_to_its_prompt(site: Command, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    with DebianAlone(tmp_path) as machine:
        run = machine.run_directory

        def again(known: str) -> DebianMachine:
            return Again(run, "again", known, storage)

        def kill(made: DebianMachine) -> None:
            assert isinstance(made, Again)
            made.kill()

        add = ("--kind", "qmp", "--at", str(run))
        live(site, tmp_path, machine, tmp_path, add, again, kill, storage, "vhdx")
