"""A machine of another host that runs from an image which is served here, while the way is cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import Forbidden, HoldfastError, NoPermission, Unsupported
from holdfast.sources.machines.libvirt.address import parse
from holdfast.sources.machines.providers import open_provider
from tests.contract.test_instant_machines import Image, files_of, image_of, over
from tests.kit.disk_images import MIB, needs_qemu
from tests.kit.instant_benches import InstantFarLibvirtBench, content
from tests.kit.libvirtd import STRANGER, needs_libvirt
from tests.kit.served import until
from tests.kit.sshd import Sshd, needs_sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.sources.machines.overlays import Over

pytestmark = [needs_qemu, needs_libvirt, needs_sshd]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[InstantFarLibvirtBench]:
    made = InstantFarLibvirtBench(tmp_path)
    try:
        yield made
    finally:
        made.close()


def left_there(bench: InstantFarLibvirtBench) -> list[Path]:
    """What there is of sockets on that host, directories too."""
    return sorted(bench.sshd.temporary.rglob("*"))


def reads(bench: InstantFarLibvirtBench, image: Image, one: Over, at: int) -> None:
    """Wait until the machine's QEMU reads from what is served here."""
    ((name, disk),) = image.shown.items()
    before = len(disk.reads)
    at = next(one for one in range(at, disk.size, 4096) if any(disk.content[one : one + 512]))

    def does() -> bool:
        bench.io(one.uuid, name, f"read {at} 512")
        return len(disk.reads) > before

    until(does, "the machine to read")


def test_a_way_that_is_cut_is_opened_anew(bench: InstantFarLibvirtBench, tmp_path: Path) -> None:
    image = image_of(bench, tmp_path, 8 * MIB)
    one = over(image)
    provider: Any = bench.open()
    (name,) = image.disks
    with image.served(bench, provider) as keep:
        provider.start_over(image.order("again", one.uuid), one)
        reads(bench, image, one, 0)

        bench.sshd.cut()
        until(lambda: not provider._host._tunnel.lives(), "the end to be noticed")
        keep()
        assert provider.standing(one).needs == (name,)
        reads(bench, image, one, MIB)
        bench.change(one.uuid, name, MIB, 5, 65536)

        # Nobody at that end hears of what happens at this one: QEMU would wait there.
        before = bench.sshd.sessions()
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        provider._host.tunnel.close()
        keep()
        reads(bench, image, one, 2 * MIB)
        assert not set(before) & set(bench.sshd.sessions())

        # Silent at this end: who waits there is let go, so that its guest stands still in time.
        silent = provider._host.tunnel._process.pid
        os.killpg(silent, signal.SIGSTOP)
        until(lambda: not bench.sshd.sessions(), "the other end to end it")
        os.killpg(silent, signal.SIGCONT)
        until(lambda: not provider._host._tunnel.lives(), "the end to be noticed")
        keep()
        reads(bench, image, one, 3 * MIB)

        provider.migrate(one, lambda _: None)
        assert provider.standing(one).needs == ()
    assert left_there(bench) == []
    found = content(bench, one.uuid, name)
    assert found[MIB : MIB + 65536] == bytes([5]) * 65536
    assert found[2 * MIB :] == image.disks[name][2 * MIB :]


_CARRIES = """
import sys, time
from holdfast.sources.machines.overlays import Over
from holdfast.sources.machines.providers import open_provider
with open_provider("libvirt", sys.argv[1]).carrying(Over("", "", sys.argv[2])) as keep:
    keep()
    print("carried", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_proxy_left_is_taken_over_and_taken_away(
    bench: InstantFarLibvirtBench, tmp_path: Path
) -> None:
    image = image_of(bench, tmp_path, 8 * MIB)
    one, before = over(image), files_of(tmp_path, bench)
    words = [sys.executable, "-c", _CARRIES, bench.url, image.socket]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == b"carried\n"
        proxy.kill()
    assert left_there(bench)
    with image.served(bench):
        bench.open().start_over(image.order("again", one.uuid), one)
        reads(bench, image, one, 0)
    assert left_there(bench) == []
    with subprocess.Popen(words, stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == b"carried\n"
        proxy.kill()
    bench.open().discard(one)
    assert left_there(bench) == []
    assert files_of(tmp_path, bench) == before


def refused(image: Image, bench: InstantFarLibvirtBench, url: str) -> HoldfastError:
    with (
        pytest.raises(HoldfastError) as caught,
        image.served(bench, open_provider("libvirt", url)),
    ):
        pass
    assert caught.value.hint
    return caught.value


def test_what_is_in_the_way_is_told_before_anything_is_made(
    bench: InstantFarLibvirtBench, tmp_path: Path
) -> None:
    image = image_of(bench, tmp_path, 4 * MIB)
    before = files_of(tmp_path, bench)
    gate = bench.daemon.directory / "run" / "libvirt-sock"
    gate.chmod(0o777)
    found = refused(image, bench, bench.sshd.url(user=STRANGER))
    assert isinstance(found, NoPermission)
    assert f"user '{STRANGER}'" in found.message
    assert "may not give QEMU's user" in found.message
    assert "root@HOST" in str(found.hint)
    gate.chmod(0o700)

    # Another's directory, or a link, in its place: nothing of ours goes there.
    home = bench.sshd.temporary / "holdfast-instant-0"
    home.mkdir()
    os.chown(home, 64999, 64999)
    found = refused(image, bench, bench.url)
    assert isinstance(found, NoPermission)
    assert "is another user's" in found.message
    home.rmdir()

    half = Sshd(bench.daemon, "AllowStreamLocalForwarding local")
    try:
        found = refused(image, bench, half.url())
    finally:
        half.end()
    assert isinstance(found, Forbidden)
    assert "lets no socket there lead to this machine" in found.message
    assert "AllowStreamLocalForwarding yes" in str(found.hint)

    assert parse("qemu+tcp://host/system").transport != "ssh"
    found = refused(image, bench, "qemu+tcp://127.0.0.1:1/system")
    assert isinstance(found, Unsupported)
    assert "is not reached by ssh" in found.message
    assert left_there(bench) == []
    assert files_of(tmp_path, bench) == before
