"""A real libvirtd of a test's own, and small machines under it.

It runs in a mount namespace in which libvirt's directories are those of the test, so that several
run side by side, and a user for QEMU is there without the machine's being asked. Takes root.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.kit.libvirt_tls import tls_certificates
from tests.kit.qemu import GRAIN, MIB, SIZE, Content

__all__ = [
    "GRAIN",
    "IMAGES",
    "MIB",
    "SIZE",
    "STRANGER",
    "LibvirtMachine",
    "Libvirtd",
    "Make",
    "libvirt_machines",
    "libvirtd_kit",
    "needs_libvirt",
    "small_domain",
    "why_no_libvirt",
]

IMAGES = "/var/lib/libvirt/images"
STRANGER = "holdfast-stranger"
"""A user of that host who may do nothing."""
_QEMU_USER = 64055
_PLACES = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
    "run": "/run/libvirt",
}
_START = """
set -e
# What other tests mount is theirs to unmount: a copy of it here would keep its file in use.
for one in $(grep '^/dev/loop' /proc/mounts | cut -d ' ' -f 2); do
  umount --lazy "$(printf '%b' "$one")" || true
done
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/run" /run/libvirt
for one in lib cache log; do mount --bind "$1/$one" "/var/$one/libvirt"; done
exec libvirtd $2 --config "$1/etc/libvirtd.conf" --pid-file "$1/libvirtd.pid"
"""


def why_no_libvirt() -> str | None:
    try:
        import libvirt  # noqa: F401
    except ImportError:
        return "needs libvirt-python"
    if shutil.which("libvirtd") is None and not Path("/usr/sbin/libvirtd").exists():
        return "needs libvirt-daemon"
    if os.geteuid() != 0:
        return "needs root, to give libvirtd directories of its own"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "true"],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return "needs to make a mount namespace" if done.returncode else None


_reason = why_no_libvirt()
needs_libvirt = pytest.mark.skipif(_reason is not None, reason=str(_reason))


class Libvirtd:
    """A libvirtd, in a directory that QEMU's user may go through."""

    def __init__(self, user: str = "libvirt-qemu", tcp_port: int = 0, tls_port: int = 0) -> None:
        self.tcp_port, self.tls_port = tcp_port, tls_port
        self.directory = Path(tempfile.mkdtemp(prefix="hf-lv-", dir="/tmp"))
        self.directory.chmod(0o711)
        # As /run is everywhere: libvirt syncs what it keeps there while a guest stands still.
        self._memory = Path(tempfile.mkdtemp(prefix="hf-lv-", dir="/dev/shm"))
        (self.directory / "run").symlink_to(self._memory)
        for name in (*_PLACES, "disks", "scratch"):
            (self.directory / name).mkdir(exist_ok=True)
            (self.directory / name).chmod(0o711)
        (self.directory / "etc" / "qemu").mkdir()
        (self.directory / "lib" / "qemu").mkdir()
        for place in _PLACES.values():
            Path(place).mkdir(parents=True, exist_ok=True)
        line = f"libvirt-qemu:x:{_QEMU_USER}:"
        passwd = Path("/etc/passwd").read_text()
        group = Path("/etc/group").read_text()
        if "libvirt-qemu:" not in passwd:
            passwd += f"{line}{_QEMU_USER}::/var/lib/libvirt:/usr/sbin/nologin\n"
        passwd += f"{STRANGER}:x:64999:64999::/:/bin/sh\n"
        group += f"{STRANGER}:x:64999:\n"
        if "libvirt-qemu:" not in group:
            group += f"{line}\n"
        # Whoever looks for KVM as root and runs machines as one who may not looks again each time.
        group = re.sub(r"(?m)^(kvm:.*:)$", r"\1libvirt-qemu", group)
        (self.directory / "passwd").write_text(passwd)
        (self.directory / "group").write_text(group)
        (self.directory / "etc" / "libvirtd.conf").write_text(
            'unix_sock_dir = "/run/libvirt"\n'
            'unix_sock_rw_perms = "0700"\nunix_sock_ro_perms = "0777"\n'
            'auth_unix_rw = "none"\nauth_unix_ro = "none"\n'
            f'listen_tcp = {int(bool(tcp_port))}\ntcp_port = "{tcp_port}"\n{self._tls()}'
            'listen_addr = "127.0.0.1"\nauth_tcp = "none"\n'
            f'log_outputs = "3:file:{self.directory}/libvirtd.log"\n'
        )
        (self.directory / "etc" / "qemu.conf").write_text(
            f'user = "{user}"\ngroup = "{user}"\nsecurity_driver = "none"\n'
            'cgroup_controllers = []\nnamespaces = []\nstdio_handler = "file"\nremember_owner = 0\n'
        )
        self.reapers: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"qemu:///system?socket={self.directory}/run/libvirt-sock"

    def _tls(self) -> str:
        """What it is told of TLS, with certificates that it and its clients have."""
        if not self.tls_port:
            return "listen_tls = 0\n"
        place = tls_certificates(self.directory / "pki")
        said = f'listen_tls = 1\ntls_port = "{self.tls_port}"\nauth_tls = "none"\n'
        said += f'ca_file = "{place}/cacert.pem"\ncert_file = "{place}/servercert.pem"\n'
        return said + f'key_file = "{place}/serverkey.pem"\n'

    @property
    def tls_url(self) -> str:
        """Where it is reached by TLS alone, by who has its clients' certificate."""
        place = self.directory / "pki"
        return f"qemu+tls://localhost:{self.tls_port}/system?pkipath={place}"

    @property
    def scratch(self) -> Path:
        return self.directory / "scratch"

    @property
    def images(self) -> Path:
        """What this libvirtd has at `IMAGES`."""
        found = self.directory / "lib" / "images"
        found.mkdir(mode=0o711, exist_ok=True)
        return found

    def start(self) -> None:
        import libvirt

        libvirt.registerErrorHandler(lambda _, __: None, None)
        command = [sys.executable, "-m", "tests.kit.reaper", "unshare", "--mount"]
        command += ["--propagation", "private", "sh", "-c", _START, "sh", str(self.directory)]
        command += ["--listen"] if self.tcp_port or self.tls_port else []
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        with (self.directory / "said").open("wb") as said:
            self.reapers.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env=environment,
                    start_new_session=True,
                )
            )
        until = time.monotonic() + 90
        while True:
            assert self.reapers[-1].poll() is None, (self.directory / "said").read_text()
            with contextlib.suppress(libvirt.libvirtError):
                libvirt.open(self.url).close()
                return
            assert time.monotonic() < until
            time.sleep(0.05)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """As a crash: its machines run on."""
        pid = self.pid
        os.kill(pid, number)
        until = time.monotonic() + 60
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < until
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        return int((self.directory / "libvirtd.pid").read_text())

    def open(self) -> Any:
        import libvirt

        return libvirt.open(self.url)

    def end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.kill()
        for known in (self.directory / "run" / "qemu").glob("*.pid"):
            with contextlib.suppress(ValueError, ProcessLookupError):
                os.kill(int(known.read_text()), signal.SIGKILL)
        for reaper in self.reapers:
            reaper.wait(60)
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self._memory, ignore_errors=True)


@contextlib.contextmanager
def libvirtd_kit() -> Iterator[Libvirtd]:
    """A libvirtd for the time of the block."""
    made = Libvirtd()
    try:
        made.start()
        yield made
    finally:
        made.end()


def small_domain(
    name: str,
    known: str,
    disks: list[Path],
    *,
    more: str = "",
    metadata: str = "",
    formats: Sequence[str] = (),
) -> str:
    """A definition of a machine that runs nothing, with a small memory.

    Its disks are files, and what lies in ``/dev`` block devices; without `formats`, the names of
    the files say what they are.
    """
    shown = ""
    for at, path in enumerate(disks):
        kind, source = ("block", "dev") if path.is_relative_to("/dev") else ("file", "file")
        shown += (
            f"<disk type='{kind}' device='disk'>"
            f"<driver name='qemu' type='{formats[at] if formats else path.suffix[1:]}'/>"
            f"<source {source}='{path}'/><target dev='vd{'abcdef'[at]}' bus='virtio'/></disk>"
        )
    return f"""<domain type='qemu'><name>{name}</name><uuid>{known}</uuid>
<metadata>{metadata}</metadata><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<cpu mode='custom' match='exact'><model>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{shown}
<interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/><rom enabled='no'/>
</interface>{more}<memballoon model='none'/></devices></domain>"""


class LibvirtMachine:
    """A machine that runs nothing; what is written to it goes through its QEMU's monitor."""

    def __init__(
        self,
        daemon: Libvirtd,
        name: str,
        uuid: str,
        *,
        formats: tuple[str, ...] = ("qcow2", "raw"),
        more: str = "",
        metadata: str = "",
        far: bool = False,
        devices: Sequence[Path] = (),
    ) -> None:
        """Make it.

        With `far`, its files are where only libvirt has them at the paths it knows; with `devices`,
        its disks are those block devices and not files.
        """
        self.daemon = daemon
        self.name = name
        self.uuid = uuid
        self.formats = formats
        self.names = [f"vd{letter}" for letter in "abcdef"[: len(formats)]]
        place = daemon.images if far else daemon.directory / "disks"
        self.files = [
            place / f"{name}-{disk}.{kind}" for disk, kind in zip(self.names, formats, strict=True)
        ]
        self.contents = {disk: Content() for disk in self.names}
        self.files = list(devices) or self.files
        for file, kind in zip(self.files, formats, strict=True):
            if not devices or kind != "raw":  # a raw device has its size
                words = ["qemu-img", "create", "-q", "-f", kind, str(file), str(SIZE)]
                subprocess.run(words, check=True)
        cd = "<disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>"
        shown = [Path(IMAGES, one.name) if far and not devices else one for one in self.files]
        self.xml = small_domain(
            name, uuid, shown, more=cd + more, metadata=metadata, formats=formats
        )
        self.connection = daemon.open()
        self.domain = self.connection.defineXML(self.xml)

    def start(self) -> None:
        self.domain.create()

    def reconnect(self) -> None:
        self.connection = self.daemon.open()
        self.domain = self.connection.lookupByUUIDString(self.uuid)

    def monitor(self, line: str) -> str:
        import libvirt_qemu

        return str(libvirt_qemu.qemuMonitorCommand(self.domain, line, 1))

    def write(self, disk: str, offset: int, length: int, pattern: int) -> None:
        self.contents[disk].write(offset, length, pattern)
        at = self.names.index(disk)
        device = f"/machine/peripheral/virtio-disk{at}/virtio-backend"
        said = self.monitor(f'qemu-io -d {device} "write -P {pattern} {offset} {length}"')
        assert "rror" not in said, said
        assert "ailed" not in said, said

    def some_writes(self, random: Any, count: int = 6) -> None:
        for _ in range(count):
            disk = random.choice(self.names)
            length = random.randrange(1, 300) * 512
            offset = random.randrange(0, (SIZE - length) // 512) * 512
            self.write(disk, offset, length, random.randrange(1, 256))

    def checkpoints(self) -> set[str]:
        return {one.getName() for one in self.domain.listAllCheckpoints()}

    def leftovers(self) -> list[str]:
        """What is of a backup at this machine, but for checkpoints."""
        import libvirt

        found = [str(one) for one in self.daemon.scratch.iterdir()]
        with contextlib.suppress(libvirt.libvirtError):
            found.append(self.domain.backupGetXMLDesc())
        return found

    def status(self) -> int:
        return int(self.domain.state()[0])

    def shut_down(self) -> None:
        """End it as it should be: QEMU writes its bitmaps."""
        self.domain.destroyFlags(1)
        assert not self.domain.isActive()

    def pid(self) -> int:
        return int((self.daemon.directory / "run" / "qemu" / f"{self.name}.pid").read_text())

    def kill(self) -> None:
        os.kill(self.pid(), signal.SIGKILL)
        until = time.monotonic() + 60
        while self.domain.isActive():
            assert time.monotonic() < until
            time.sleep(0.02)

    def remove(self) -> None:
        import libvirt

        with contextlib.suppress(libvirt.libvirtError):
            if self.domain.isActive():
                self.domain.destroy()
            flags = libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            self.domain.undefineFlags(flags)
        self.connection.close()


Make = Callable[..., LibvirtMachine]


@contextlib.contextmanager
def libvirt_machines(daemon: Libvirtd, **always: Any) -> Iterator[Make]:
    """What makes machines that go when the block ends."""
    made: list[LibvirtMachine] = []

    def one(**given: Any) -> LibvirtMachine:
        identity = str(uuid4())
        made.append(LibvirtMachine(daemon, f"m{identity[:8]}", identity, **(always | given)))
        return made[-1]

    try:
        yield one
    finally:
        for machine in made:
            machine.remove()
