"""A machine of a libvirt of another host that runs from an image which its proxy serves, by ssh.

That host is a mount namespace of its own: neither its disks nor the socket by which it reaches the
image are at any path here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import reading_guest
from tests.kit.agents import MachineSite, machine_site
from tests.kit.disk_images import needs_qemu
from tests.kit.guest import needs_guest
from tests.kit.libvirtd import libvirtd_kit, needs_libvirt
from tests.kit.reading_guest import counted
from tests.kit.sshd import Sshd, needs_sshd
from tests.system.instant_recovery.test_libvirt import (
    UUID,
    Host,
    assert_completed,
    await_state,
    back_up,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.command import Command

pytestmark = [needs_qemu, needs_guest, needs_libvirt, needs_sshd, pytest.mark.timeout(600)]


@pytest.fixture
def host() -> Iterator[tuple[Host, Sshd]]:
    with libvirtd_kit() as daemon:
        made = Host(daemon, far=True)
        sshd = Sshd(daemon)
        made.domain.create()
        made.count_on(3)
        try:
            yield made, sshd
        finally:
            made.connection.close()
            sshd.end()


@pytest.fixture
def network(site: Command, tmp_path: Path) -> Iterator[MachineSite]:
    (tmp_path / "machines").mkdir()
    with machine_site(site, tmp_path / "machines") as made:
        yield made


def left(sshd: Sshd) -> list[Path]:
    """What there is of sockets, on that host."""
    return sorted(sshd.temporary.rglob("*"))


def test_a_guest_of_another_host_outlives_the_way_and_the_proxy(
    network: MachineSite, host: tuple[Host, Sshd], tmp_path: Path
) -> None:
    there, sshd = host
    with network.machine("proxy1") as proxy:
        image = back_up(network, there, tmp_path, sshd.url())
        network.site("instant", image, "--to", "kvm1").assert_ok()
        await_state(network, "running")
        there.await_ready()
        there.count_on()
        assert left(sshd)

        sshd.cut()
        there.count_on(10)
        proxy.kill()
        proxy.start()
        there.count_on(10)

        await_state(network, "running")
        job = int(network.site("instant", "migrate", "1").assert_ok().text)
        assert_completed(network, job, proxy)
        serve = int(await_state(network, "own")["serve_job"])
        network.ended(serve)
        assert left(sshd) == []
        proxy.stop()
    # Nobody serves any more.
    there.count_on()
    far = counted(there.log)
    domain = there.connection.lookupByUUIDString(UUID)
    assert "holdfast" not in domain.XMLDesc(2)
    domain.destroy()
    (own,) = there.files()
    counter, data = reading_guest.content_of(own, "qcow2", tmp_path)
    assert counter >= far
    assert data == there.content


def test_what_is_discarded_at_another_host_leaves_nothing(
    network: MachineSite, host: tuple[Host, Sshd], tmp_path: Path
) -> None:
    there, sshd = host
    with network.machine("proxy1") as proxy:
        image = back_up(network, there, tmp_path, sshd.url())
        words = ("instant", image, "--to", "kvm1", "--new-identity", "--name", "web-test")
        network.site(*words).assert_ok()
        await_state(network, "running")
        there.await_ready()
        serve = network.site("instant", "show", "1", "--json").json()["serve_job"]
        network.site("jobs", "cancel", str(serve)).assert_ok()
        await_state(network, "not served")
        network.site("instant", "resume", "1").assert_ok()
        await_state(network, "running")
        there.count_on(10)
        job = int(network.site("instant", "discard", "1").assert_ok().text)
        assert_completed(network, job, proxy)
        await_state(network, "discarded")
        assert there.files() == set()
        assert left(sshd) == []
        assert there.connection.listAllDomains() == []
        proxy.stop()
