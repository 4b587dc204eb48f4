"""The Debian that tests use as a guest is one: it boots by itself, works, and shows a console."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit.debian_guest import needs_debian
from tests.kit.debian_machine import (
    DebianAlone,
    DebianMachine,
    DebianUnderLibvirt,
    listener,
    reaching,
)
from tests.kit.libvirtd import libvirtd_kit, needs_libvirt

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [needs_debian, pytest.mark.slow, pytest.mark.timeout(900)]


def assert_works(machine: DebianMachine) -> None:
    print(f"login after {machine.wait_for_login():.1f} s")
    assert "Debian" in machine.ask("guest-get-osinfo")["pretty-name"]
    assert machine.run("/bin/systemctl", "--failed", "--plain", "--no-legend") == ""
    assert machine.shell("findmnt -no SOURCE,FSTYPE /").split() == ["/dev/vda1", "ext4"]
    # On a busy machine udev may tell of the console later than anybody waits.
    getty = machine.run("/bin/systemctl", "show", "-p", "After", "serial-getty@ttyS0.service")
    assert "systemd-user-sessions.service" in getty
    assert "dev-ttyS0.device" not in getty
    machine.put("/srv/text", "it's here\n")
    assert machine.shell("cat /srv/text") == "it's here\n"
    machine.start_load()
    frozen = machine.ask("guest-fsfreeze-freeze")
    assert machine.ask("guest-fsfreeze-thaw") == frozen >= 1


def test_it_works_with_qemu_alone(tmp_path: Path) -> None:
    with DebianAlone(tmp_path) as machine:
        assert_works(machine)


@needs_libvirt
def test_it_works_under_libvirt() -> None:
    with libvirtd_kit() as daemon, DebianUnderLibvirt(daemon) as machine:
        assert_works(machine)
        # Where its network lets it out, it gets out: `verify-boot` gives it another.
        with listener() as (waiting, addresses):
            for address in addresses:
                machine.shell(reaching(address, waiting.getsockname()[1]))
                waiting.accept()[0].close()
