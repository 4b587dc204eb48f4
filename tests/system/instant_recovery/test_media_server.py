"""A machine runs from an image of a media server, which is killed, freezes, and comes back."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import reading_guest
from tests.kit.agents import SOON_MISSED, Machine, MachineSite, free_place, machine_site
from tests.kit.asking import recovery_of
from tests.kit.disk_images import needs_qemu
from tests.kit.guest import needs_guest
from tests.kit.reading_guest import READY, counted
from tests.kit.served import until
from tests.system.instant_recovery.test_qmp import POLICY, Estate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.command import Command

pytestmark = [needs_qemu, needs_guest, pytest.mark.timeout(600)]

WITHOUT_IMAGE = ("image away", "standing still", "not served")
PIECES = 256
"""More than is read ahead: the guest needs the media server again and again."""


@pytest.fixture
def network(site: Command, tmp_path: Path) -> Iterator[MachineSite]:
    (tmp_path / "machines").mkdir()
    with machine_site(site, tmp_path / "machines", environ=SOON_MISSED) as made:
        yield made


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path / "kvm", PIECES, stride=1)
    made.start()
    try:
        yield made
    finally:
        made.end()


def back_up(network: MachineSite, estate: Estate, tmp_path: Path, proxy: str | None) -> str:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.replace("active = false", 'active = false\nstorage_unit = "branch"'))
    words = ("storage", "create", "branch", "--on", "media1", "--pool", tmp_path / "branch")
    network.site(*words).assert_ok()
    by = () if proxy is None else ("--proxy", proxy)
    add = ("hypervisor", "add", "kvm1", "--kind", "qmp", "--at", str(estate.run), *by)
    network.site(*add).assert_ok()
    network.site("policy", "apply", policy, "--yes").assert_ok()
    job = network.run("vms")
    done = network.ended(job)
    assert done["outcome"].startswith("completed"), network.site("events", str(job)).text
    estate.end()
    estate.log.unlink()
    network.site("hypervisor", "discover", "kvm1").assert_ok()
    return str(done["image_id"])


def shown(network: MachineSite) -> dict[str, Any]:
    found = recovery_of(network.site)
    assert found["state"] != "failed", found
    return found


def await_state(network: MachineSite, *states: str) -> dict[str, Any]:
    until(lambda: shown(network)["state"] in states, f"it to be {states}", 120)
    return shown(network)


def await_still(estate: Estate) -> None:
    """Wait until the guest waits for its image."""
    seen = [(-1, 0.0)]

    def still() -> bool:
        now = counted(estate.log)
        if now != seen[0][0]:
            seen[0] = now, time.monotonic()
        return time.monotonic() - seen[0][1] > 3

    until(still, "the guest to stand still", 120)


@contextlib.contextmanager
def running(
    network: MachineSite, estate: Estate, tmp_path: Path, proxy: str | None, port: int = 0
) -> Iterator[Machine]:
    """A guest that runs from an image of a media server; that one."""
    with contextlib.ExitStack() as stack:
        media = stack.enter_context(network.media_server("media1", shares=False, port=port))
        if proxy is not None:
            stack.enter_context(network.machine(proxy))
        image = back_up(network, estate, tmp_path, proxy)
        network.site("instant", image, "--to", "kvm1").assert_ok()
        await_state(network, "running")
        until(lambda: READY in reading_guest.said(estate.log), "the guest", 180)
        estate.count_on(3)
        yield media


def assert_told(network: MachineSite) -> None:
    told = await_state(network, *WITHOUT_IMAGE)
    assert "what it wrote is safe" in told["words"]
    if told["state"] == "not served":
        assert "media server 'media1', which has its image, is not" in told["words"]


@pytest.mark.parametrize("proxy", ["proxy1", None], ids=["proxy", "master"])
def test_a_guest_outlives_a_media_server_that_is_killed(
    network: MachineSite, estate: Estate, tmp_path: Path, proxy: str | None
) -> None:
    # The proxy meets it at another port the next time, the master at the same one.
    port = 0 if proxy else int(free_place().rpartition(":")[2])
    with running(network, estate, tmp_path, proxy, port) as media:
        media.kill()
        await_still(estate)
        assert_told(network)
        media.start()
        estate.count_on(3)
        finish(network, estate, tmp_path)


def test_a_guest_outlives_a_media_server_that_freezes(
    network: MachineSite, estate: Estate, tmp_path: Path
) -> None:
    with running(network, estate, tmp_path, "proxy1") as media:
        # It answers nobody, and hangs nobody up.
        assert media.process is not None
        media.process.send_signal(signal.SIGSTOP)
        await_still(estate)
        assert_told(network)
        media.process.send_signal(signal.SIGCONT)
        estate.count_on(3)


def finish(network: MachineSite, estate: Estate, tmp_path: Path) -> None:
    """Move it, and compare all that it has."""
    await_state(network, "running")
    job = int(network.site("instant", "migrate", "1").assert_ok().text)
    done = network.ended(job)
    said = network.site("events", str(job)).text
    assert done["outcome"].startswith("completed"), (done, said)
    await_state(network, "own")
    estate.count_on(2)
    far = counted(estate.log)
    estate.end()
    (own,) = (estate.run / "web").glob("*.qcow2")
    counter, data = reading_guest.content_of(str(own), "qcow2", tmp_path)
    assert counter >= far
    assert data == (tmp_path / "kvm" / "web-content" / "data").read_bytes()
