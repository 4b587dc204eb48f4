"""A real Debian on a disk that boots by itself: GRUB, Debian's kernel, systemd, the guest agent.

It is made once per machine, by debootstrap, without KVM or a loop device, in about two minutes, and
lies in a cache that all checkouts share (``~/.cache/holdfast-tests``, else `HOLDFAST_TEST_CACHE`);
the key is the text that makes it, in `RECIPE` and `_make`. Must not be written to: tests take
an `overlay` or a `copy`. Debian comes from where apt of this machine has it.

Its agent runs the scripts around a freeze as the guide has it set up; it takes its address by DHCP,
and says a word to whoever connects to `GREETS`.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

MIB = 1 << 20
SIZE = 2048 * MIB
FIRST = 2048
"""Sector at which its one partition begins; GRUB lies between that and the partition table."""

LOGIN = "holdfast-guest login:"
"""What it says on its serial console when it is up. root has no password."""

GREETS = 2000
"""A TCP port of it where somebody says a word, and nothing but that."""

MARKS = "/srv/marks"
"""A line of it for each freeze and each thaw: what a script of the agent was called with."""

GUIDE = Path(__file__).parents[2] / "docs/guides/virtual-machines.md"

PACKAGES = (
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "grub-pc-bin",
    "grub2-common",
    "qemu-guest-agent",
    "iproute2",
)
MODULES = "virtio_pci virtio_blk virtio_scsi virtio_console sd_mod ata_piix ahci ext4"
GRUB_MODULES = "biosdisk part_msdos part_gpt ext2 normal linux configfile serial terminal echo"
UNUSED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-hwdb-update.service",
    "systemd-network-generator.service",
    "systemd-networkd-wait-online.service",
    # What takes a processor that is emulated many seconds, and nobody here needs.
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-logind.service",
)
GRUB = """serial --unit=0 --speed=115200
terminal_output console serial
set timeout=0
set emulated="mitigations=off systemd.service_watchdogs=no"
menuentry Debian {
  linux /vmlinuz root=UUID=@UUID@ ro console=tty0 console=ttyS0 quiet panic=30 $emulated
  initrd /initrd.img
}
"""
LOAD = """#!/bin/sh
# Writes for as long as it runs. The number in /srv/counter was on the disk before it was there.
mkdir -p /srv/load
n=$(cat /srv/counter 2>/dev/null || echo 0)
while true; do
  n=$((n + 1))
  dd if=/dev/urandom of=/srv/load/$((n % 64)) bs=64k count=4 conv=fsync status=none
  echo $n > /srv/next && sync /srv/next && mv /srv/next /srv/counter && sync /srv
done
"""
LOAD_UNIT = """[Unit]
Description=Writes to the disk, again and again
[Service]
ExecStart=/usr/local/sbin/load
"""
PATIENCE = """[Manager]
DefaultTimeoutStartSec=infinity
DefaultDeviceTimeoutSec=infinity
"""
"""How long systemd waits: a processor that is emulated on a busy one takes its time."""
GETTY = """[Unit]
Description=Prompt on the serial console
After=systemd-user-sessions.service
Before=getty.target
[Service]
ExecStart=-/sbin/agetty --keep-baud 115200 - vt220
Type=idle
Restart=always
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/ttyS0
TTYReset=yes
TTYVHangup=yes
SendSIGHUP=yes
[Install]
WantedBy=getty.target
"""
"""In place of systemd's own, which waits until udev tells of what the kernel has anyway."""
NETWORK = """[Match]
Type=ether
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
GREETING_SOCKET = f"""[Socket]
ListenStream={GREETS}
Accept=yes
[Install]
WantedBy=sockets.target
"""
GREETING = """[Service]
ExecStart=-/bin/echo holdfast-guest is here
StandardInput=socket
"""
MARK = f"""#!/bin/sh
echo "$1" >>{MARKS}
"""


def _of_the_guide(name: str) -> str:
    """A file as the guide for users has it, in the block after the first one who names it."""
    found = re.search(rf"`{re.escape(name)}`.*?\n```\w+\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None, f"the guide has no {name}"
    return found[1]


HOOKS_AT = "/etc/systemd/system/qemu-guest-agent.service.d/hooks.conf"
HOOKS = _of_the_guide(HOOKS_AT)
TEXTS = (GRUB, LOAD, LOAD_UNIT, PATIENCE, GETTY, LOGIN, NETWORK, GREETING_SOCKET, GREETING, MARK)
RECIPE = "\n".join((*PACKAGES, MODULES, GRUB_MODULES, *UNUSED, *TEXTS, HOOKS))

UUID = "3b0f6f2c-6b1d-4e0b-8f0a-5d1c9a7e2a10"
_TIMEOUT_S = 900


def _suite() -> str:
    """The release of this machine's Debian, such as ``bookworm``; empty where it is none."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except FileNotFoundError:
        return ""
    known = dict(line.split("=", 1) for line in lines if "=" in line)
    return known.get("VERSION_CODENAME", "") if known.get("ID") == "debian" else ""


def _mirror() -> str:
    """Where apt has this release from; empty where that is unknown."""
    words = ["apt-get", "indextargets", "--format", "$(COMPONENT) $(REPO_URI)"]
    words += ["Created-By: Packages", f"Codename: {_suite()}", "Origin: Debian"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
    found = [line.split()[1] for line in said.splitlines() if line.startswith("main ")]
    return found[0] if found else ""


def why_not() -> str | None:
    """What is missing to make and to run it."""
    if os.geteuid() != 0:
        return "needs root, to make a Debian by debootstrap"
    for program, package in (
        ("debootstrap", "debootstrap"),
        ("mkfs.ext4", "e2fsprogs"),
        ("sfdisk", "fdisk"),
        ("qemu-img", "qemu-utils"),
        ("qemu-system-x86_64", "qemu-system-x86"),
    ):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"needs {package}"
    if not _suite() or not _mirror():
        return "needs a Debian whose apt knows a mirror (apt-get update)"
    return None


_reason = why_not()
needs_debian = pytest.mark.skipif(_reason is not None, reason=str(_reason))


def disk() -> Path:
    """The disk, as qcow2; made if it is not there yet. Nobody may write to it."""
    place = Path(
        os.environ.get("HOLDFAST_TEST_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast-tests"
    )
    place.mkdir(parents=True, exist_ok=True)
    recipe = f"{_suite()}\n{RECIPE}\n{inspect.getsource(_make)}\n{SIZE} {FIRST}"
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    made = place / f"debian-guest-{key}.qcow2"
    with (place / "debian-guest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            work = place / "debian-guest.work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                _make(work)
                (work / "disk.qcow2").chmod(0o444)
                (work / "disk.qcow2").rename(made)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return made


def overlay(path: Path) -> Path:
    """A disk of one's own that costs nothing: a qcow2 with the cached one as its backing file."""
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(disk()), str(path)]
    subprocess.run(words, check=True)
    return path


def copy(path: Path) -> Path:
    """A disk of one's own that stands by itself, in the format of its suffix (``.qcow2``, …)."""
    kind = {"img": "raw", "vhd": "vpc"}.get(path.suffix[1:], path.suffix[1:])
    words = ["qemu-img", "convert", "-f", "qcow2", "-O", kind, str(disk()), str(path)]
    subprocess.run(words, check=True)
    return path


def _make(work: Path) -> None:
    root = work / "root"
    _debootstrap(root, work / "log")
    release = next((root / "lib" / "modules").iterdir()).name
    texts = {
        "etc/hostname": "holdfast-guest\n",
        "etc/hosts": "127.0.0.1 localhost holdfast-guest\n",
        "etc/fstab": f"UUID={UUID} / ext4 errors=remount-ro 0 1\n",
        "etc/initramfs-tools/modules": MODULES.replace(" ", "\n") + "\n",
        "etc/initramfs-tools/conf.d/few": "MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n",
        "boot/grub/grub.cfg": GRUB.replace("@UUID@", UUID),
        "usr/local/sbin/load": LOAD,
        "etc/systemd/system/load.service": LOAD_UNIT,
        "etc/systemd/system/serial-getty@ttyS0.service": GETTY,
        "etc/systemd/system.conf.d/patience.conf": PATIENCE,
        "etc/systemd/network/any.network": NETWORK,
        "etc/systemd/system/greeting.socket": GREETING_SOCKET,
        "etc/systemd/system/greeting@.service": GREETING,
        HOOKS_AT[1:]: HOOKS,
        "etc/qemu/fsfreeze-hook.d/mark": MARK,
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in ("usr/local/sbin/load", "etc/qemu/fsfreeze-hook.d/mark"):
        (root / name).chmod(0o755)
    _inside(root, "passwd", "--delete", "root")
    wanted = ("serial-getty@ttyS0.service", "greeting.socket", "systemd-networkd.service")
    _inside(root, "systemctl", "enable", *wanted)
    _inside(root, "systemctl", "mask", *UNUSED)
    _inside(root, "update-initramfs", "-u", "-k", release)
    # What `grub-install` would do, were the disk one that it can ask the kernel about.
    modules = root / "usr/lib/grub/i386-pc"
    shutil.copytree(modules, root / "boot/grub/i386-pc")
    words = ["-O", "i386-pc", "-o", "/boot/grub/i386-pc/core.img", "-p", "(,msdos1)/boot/grub"]
    _inside(root, "grub-mkimage", *words, *GRUB_MODULES.split())
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists"):
        shutil.rmtree(root / name)
        (root / name).mkdir()
    core = (root / "boot/grub/i386-pc/core.img").read_bytes()
    assert len(core) <= (FIRST - 1) * 512, "GRUB does not fit before the partition"
    partition, raw = work / "partition", work / "disk.raw"
    with partition.open("wb") as file:
        file.truncate(SIZE - FIRST * 512)
    words = ["mkfs.ext4", "-q", "-F", "-U", UUID, "-L", "root", "-m", "1", "-d", str(root)]
    _run(*words, "-E", "lazy_itable_init=0,lazy_journal_init=0", str(partition))
    with raw.open("wb") as file:
        file.truncate(SIZE)
    _run("sfdisk", "--quiet", str(raw), text=f"label: dos\nstart={FIRST}, type=83, bootable\n")
    with raw.open("r+b") as file:
        file.write((modules / "boot.img").read_bytes()[:440])
        file.seek(512)
        file.write(core)
    words = ["dd", f"if={partition}", f"of={raw}", "bs=1M", f"seek={FIRST * 512 // MIB}"]
    _run(*words, "conv=notrunc,sparse", "status=none")
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(work / "disk.qcow2"))


def _debootstrap(root: Path, log: Path) -> None:
    asked = ["apt-config", "shell", "proxy", "Acquire::http::Proxy"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    proxy = {"http_proxy": said.removeprefix("proxy=").strip("'")} if said else {}
    words = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    words += [_suite(), str(root), _mirror()]
    with log.open("wb") as file:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=_environment() | proxy,
            timeout=_TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        if "Failed getting release file" in end:
            pytest.skip("the mirror of Debian that apt is set up with does not answer")
        raise AssertionError(f"debootstrap: {end}")


def _environment() -> dict[str, str]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}


def _inside(root: Path, *words: str) -> None:
    _run("chroot", str(root), *words)


def _run(*words: str, text: str = "") -> None:
    done = subprocess.run(
        words,
        input=text,
        capture_output=True,
        text=True,
        env=_environment(),
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
