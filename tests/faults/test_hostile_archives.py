"""Archives and directories of machines that are hostile, damaged or partly unreadable."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import (
    HoldfastError,
    Invalid,
    NoPermission,
    NotFound,
)
from holdfast.sources.machines.provider import NewMachine
from holdfast.sources.machines.providers import open_provider
from tests.kit.disk_images import MIB, create, needs_qemu
from tests.kit.machine_providers import Writer, domain_xml, order, read

if TYPE_CHECKING:
    from holdfast.sources.machines.provider import Provider


pytestmark = needs_qemu


KNOWN = "0c6a2c52-7d4e-4a11-9f0b-b4dd2f3a9a10"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = tmp_path / "store"
    made.mkdir()
    return made


def opened(store: Path) -> Provider:
    return open_provider("diskfiles", str(store))


def refused(store: Path, scratch: Path, name: str | None = None) -> HoldfastError:
    """What keeps a machine from being backed up, which a trial has to find too."""
    provider = opened(store)
    found = [one for one in provider.machines() if name in (None, one.name)]
    assert len(found) == 1, found
    errors = [one for one in provider.try_out(found[0].uuid, scratch) if one.severity == "error"]
    with (
        pytest.raises(HoldfastError) as caught,
        provider.snapshot(order(found[0].uuid, scratch)),
    ):
        pass
    assert caught.value.code in {one.code for one in errors}
    assert caught.value.hint
    return caught.value


def ova(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


class TestArchives:
    def document(self, href: str) -> bytes:
        from tests.contract.test_disk_files import OVF

        return OVF.replace("web-disk1.vmdk", href).encode()

    @pytest.mark.parametrize("href", ["../../etc/passwd", "/etc/passwd", "sub/disk.vmdk", "gone"])
    def test_a_disk_that_is_not_in_the_archive_is_left_out(
        self, store: Path, tmp_path: Path, href: str
    ) -> None:
        members = [(tarfile.TarInfo("web.ovf"), self.document(href))]
        if not href.startswith("gone"):
            members.append((tarfile.TarInfo(href), b"x" * 1024))
        ova(store / "web.ova", *members)
        (machine,) = opened(store).machines()
        assert all(one.left_out for one in machine.disks)

    def test_a_link_in_the_archive_is_not_followed(self, store: Path) -> None:
        link = tarfile.TarInfo("disk.vmdk")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        ova(
            store / "web.ova",
            (tarfile.TarInfo("web.ovf"), self.document("disk.vmdk")),
            (link, b""),
        )
        (machine,) = opened(store).machines()
        assert all(one.left_out for one in machine.disks)

    def test_an_archive_that_is_cut_off_is_named(self, store: Path, tmp_path: Path) -> None:
        ova(
            store / "web.ova",
            (tarfile.TarInfo("web.ovf"), self.document("disk.vmdk")),
            (tarfile.TarInfo("disk.vmdk"), bytes(MIB)),
        )
        os.truncate(store / "web.ova", 100_000)
        error = refused(store, tmp_path)
        assert isinstance(error, Invalid)
        assert "OVA" in error.message

    def test_a_header_that_claims_gigabytes_is_not_read(self, store: Path, tmp_path: Path) -> None:
        info = tarfile.TarInfo("pax")
        info.type, info.size = tarfile.XHDTYPE, 8 << 30
        with (store / "web.ova").open("wb") as file:
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.truncate(9 << 30)
        error = refused(store, tmp_path)
        assert isinstance(error, Invalid)

    def test_what_is_no_archive_is_named(self, store: Path, tmp_path: Path) -> None:
        (store / "web.ova").write_bytes(b"rubbish" * 1000)
        assert isinstance(refused(store, tmp_path), Invalid)


class TestDirectories:
    def test_an_empty_one_has_no_machines(self, store: Path) -> None:
        assert opened(store).machines() == []
        assert opened(store).clean_up() == []

    @pytest.mark.parametrize(
        "url", ["relative", "http://x/y", "/tmp?what=1", "file://host/tmp", "/tmp#x"]
    )
    def test_what_is_no_directory_is_refused(self, url: str) -> None:
        with pytest.raises(Invalid) as caught:
            open_provider("diskfiles", url)
        assert "absolute path" in (caught.value.hint or "")

    def test_one_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="nowhere"):
            open_provider("diskfiles", str(tmp_path / "nowhere"))

    def test_what_a_restore_that_was_killed_left_is_found(self, store: Path) -> None:
        left = store / ".holdfast-restore-0123"
        left.mkdir()
        (left / "vda.qcow2").write_bytes(b"x")
        assert opened(store).machines() == []
        assert [one.code for one in opened(store).clean_up()] == ["leftover"]
        assert not left.exists()

    def test_its_name_may_be_like_any(self, tmp_path: Path) -> None:
        strange = tmp_path / "what?host=x#y%20 z"
        strange.mkdir()
        create(strange / "web.qcow2", "qcow2", MIB)
        (machine,) = opened(strange).machines()
        with opened(strange).snapshot(order(machine.uuid, tmp_path)) as frozen:
            disks = {one.name: read(one) for one in frozen.disks}
        new = NewMachine(machine, {}, "again", False, None, None, "qcow2")
        assert opened(strange).restore(new, Writer(disks)).name == "again"

    @pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root gives up its powers"
    )
    def test_what_this_user_may_not_read_is_named(self, store: Path, tmp_path: Path) -> None:
        disk = create(store / "web.qcow2", "qcow2", MIB)
        (store / "web.xml").write_text(domain_xml("web", KNOWN, [disk]))
        disk.chmod(0)
        code = (
            "import sys, pathlib\n"
            "from holdfast.base.errors import HoldfastError\n"
            "from holdfast.sources.machines.providers import open_provider\n"
            "from holdfast.sources.machines.provider import SnapshotOrder\n"
            "provider = open_provider('diskfiles', sys.argv[1])\n"
            "print([one.name for one in provider.machines()])\n"
            f"order = SnapshotOrder({KNOWN!r}, None, False, False, pathlib.Path('/'), 'x')\n"
            "try:\n"
            "    with provider.snapshot(order): pass\n"
            "except HoldfastError as error:\n"
            "    print(error.code, error.message)\n"
        )
        powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        done = subprocess.run(
            [*powerless, sys.executable, "-c", code, str(store)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "['web']",
            f"{NoPermission.code} file '{disk}' can't be read: Permission denied",
        ]
