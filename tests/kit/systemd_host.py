"""A machine that systemd runs, in namespaces of this one, for units that are started for real.

systemd is its process 1, with a cgroup, mounts, processes and a network of its own, over a copy of
this machine's root file system that costs nothing (an overlay). Holdfast is at /opt/holdfast, as
pip would lay it there. It keeps nobody in: root in it is root here. Must not write to this
machine's sysctls or load modules, which have no namespace. Invariants: what is written in it is
written in its directory alone; nothing of it is left when the block has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.kit.command import Command
from tests.kit.served import until

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEMD = Path("/lib/systemd/systemd")
PROGRAM = "/opt/holdfast/bin/holdfast"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_NAME = "holdfast-host"
ADDRESS = "10.99.0.1"
"""Its own; beside 127.0.0.1, nobody else is in its network."""
PATIENCE_S = 240.0

_ROOT = Path(__file__).parents[2]
_NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup")

UNWANTED = (
    "modprobe@.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-remount-fs.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-timesyncd.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-logind.service",
    "systemd-random-seed.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "getty.target",
    "timers.target",
)
"""What is the real machine's concern, or takes time and shows nothing here."""

_BOOT = r"""
set -eu
d=$1 source=$2 libraries=$3 python=$4 mine=$5
root=$d/root
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$d/upper,workdir=$d/work" "$root"
[ -d "$root$python/bin" ] || { mkdir -p "$root$python"; mount --bind "$python" "$root$python"; }
mkdir -p "$root/opt/holdfast/bin" "$root$mine"
mount -t overlay overlay -o "ro,lowerdir=$source:$libraries" "$root$mine"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,noexec,nodev sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for one in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$one"; done
chmod 1777 "$root/tmp"
for one in null zero full random urandom tty fuse; do
  [ -e "/dev/$one" ] || continue
  touch "$root/dev/$one"; mount --bind "/dev/$one" "$root/dev/$one"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"; ln -s /proc/self/fd "$root/dev/fd"
ip link set lo up
ip link add eth0 type veth peer name eth1
ip address add 10.99.0.1/24 dev eth0
ip link set eth0 up; ip link set eth1 up
hostname "$8"
cd "$root"
pivot_root . mnt
umount -l /mnt
# As systemd itself has it where it is not in a container: mounts reach units that run already.
mount --make-rshared /
exec env -i container=holdfast-test "PATH=$6" "$7" --system --unit=multi-user.target \
  --show-status=no --log-target=journal
"""


def _unified() -> Path | None:
    """This process's own cgroup of version 2."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            own = [
                one.partition("::")[2]
                for one in Path("/proc/self/cgroup").read_text().splitlines()
                if one.startswith("0::")
            ]
            return Path(before.split()[4] + own[0].rstrip("/")) if own else None
    return None


def why_not() -> str | None:
    """What is missing to run one."""
    if os.geteuid() != 0:
        return "needs root, to run a systemd in namespaces of its own"
    if not SYSTEMD.exists():
        return "needs systemd"
    for program in ("unshare", "nsenter", "setpriv", "pivot_root", "ip"):
        if shutil.which(program, path=PATH) is None:
            return f"needs {program}"
    cgroup = _unified()
    if cgroup is None or not os.access(cgroup, os.W_OK):
        return "needs a cgroup of version 2 that may be written to"
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "true"], capture_output=True, check=False
    )
    if tried.returncode:
        return "may not make namespaces"
    return None


_reason = why_not()
needs_systemd_host = pytest.mark.skipif(_reason is not None, reason=str(_reason))


@dataclass
class SystemdHost:
    """One such machine. What is written in it outlives a `reboot`, except in /run and /tmp."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None
    boots: int = 0
    _cgroup: Path = field(default_factory=Path)
    _init: int = 0

    def __enter__(self) -> Self:
        for name in ("upper", "work", "root"):
            (self.directory / name).mkdir(parents=True)
        found = _unified()
        assert found is not None
        self._cgroup = found / f"holdfast-test-{secrets.token_hex(4)}"
        self._lay()
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        # It is mounted nowhere now, and has marks that only root may remove.
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- its life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Switch it on, and wait until it is up."""
        self._cgroup.mkdir()
        words = [str(self.directory), str(_ROOT / "src"), sysconfig.get_path("purelib")]
        words += [sys.base_prefix, _packages(), PATH, str(SYSTEMD), HOST_NAME]
        log = (self.directory / "console").open("ab")
        with log:
            # It ends with whoever runs the tests, even if that one is killed.
            into = f'echo $$ > {self._cgroup}/cgroup.procs; exec setpriv --pdeathsig KILL "$@"'
            boot = [
                "unshare",
                *_NAMESPACES,
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                _BOOT,
                "boot",
                *words,
            ]
            self.process = subprocess.Popen(
                ["sh", "-c", into, "sh", *boot],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.boots += 1
        self._init = until(self._find_init, "systemd to be process 1", PATIENCE_S)
        until(self._is_up, "systemd to have started everything", PATIENCE_S)

    def kill(self) -> None:
        """As if its power went."""
        if self.process is None:
            return
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait(60)
        self._over()

    def reboot(self) -> None:
        """Have it shut down in order, and switch it on again."""
        self.systemctl("reboot")
        assert self.process is not None
        self.process.wait(PATIENCE_S)
        self._over()
        self.start()

    def _over(self) -> None:
        self.process, self._init = None, 0
        end = time.monotonic() + 20
        # What was killed leaves its cgroup a moment later.
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            while True:
                try:
                    Path(directory).rmdir()
                except OSError:
                    assert time.monotonic() < end, f"{directory} is not empty"
                    time.sleep(0.05)
                else:
                    break

    def _find_init(self) -> int:
        assert self.process is not None
        if self.process.poll() is not None:
            said = (self.directory / "console").read_text(errors="replace")
            pytest.skip(f"no systemd can be run here: {said.strip()[-500:]}")
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in file.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        return 0

    def _is_up(self) -> bool:
        said = self.run("systemctl", "is-system-running", check=False).strip()
        return said in ("running", "degraded")

    # -- what is done in it ----------------------------------------------------------------------

    def prefix(self) -> tuple[str, ...]:
        """Words that have a program run in it."""
        inside = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd=/")
        return ("nsenter", "--target", str(self._init), *inside, "env", "-i", f"PATH={PATH}")

    def run(self, *words: str, check: bool = True) -> str:
        """Run a program in it; what it says."""
        done = subprocess.run(
            [*self.prefix(), *words],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def systemctl(self, *words: str) -> str:
        return self.run("systemctl", *words)

    def holdfast(self, home: str) -> Installed:
        """Its command line for one home."""
        return Installed(Path(home), host=self)

    def place(self, path: str | Path) -> Path:
        """Where this machine sees a path of it. Links that begin with / lead elsewhere."""
        return Path(f"/proc/{self._init}/root{path}")

    def shown(self, unit: str, *properties: str) -> dict[str, str]:
        """What systemd knows of a unit."""
        words = ["systemctl", "show", unit, *(f"--property={one}" for one in properties)]
        return dict(line.split("=", 1) for line in self.run(*words).splitlines() if "=" in line)

    def main_pid(self, unit: str) -> int:
        return int(self.shown(unit, "MainPID")["MainPID"])

    def journal(self, unit: str, boot: str = "0") -> list[dict[str, Any]]:
        """What a unit has written, and systemd about it, as records of the journal."""
        words = ("journalctl", "--unit", unit, "--boot", boot, "--output=json", "--no-pager")
        return [json.loads(line) for line in self.run(*words).splitlines()]

    # -- how it is laid ---------------------------------------------------------------------------

    def _lay(self) -> None:
        """Write what it has otherwise than this machine."""
        upper = self.directory / "upper"
        units = upper / "etc" / "systemd" / "system"
        units.mkdir(parents=True)
        # None of the units that somebody has enabled here.
        os.setxattr(units, "trusted.overlay.opaque", b"y")
        for name in UNWANTED:
            (units / name).symlink_to("/dev/null")
        texts = {
            "etc/fstab": "",
            "etc/machine-id": secrets.token_hex(16) + "\n",
            "etc/hostname": f"{HOST_NAME}\n",
            "etc/hosts": f"127.0.0.1 localhost {HOST_NAME}\n",
            "opt/holdfast/pyvenv.cfg": (
                f"home = {sys.base_prefix}/bin\ninclude-system-site-packages = false\n"
            ),
            "opt/holdfast/bin/holdfast": (
                "#!/opt/holdfast/bin/python\nimport sys\nfrom holdfast.faces.cli.main import main\n"
                "if __name__ == '__main__':\n    sys.exit(main())\n"
            ),
        }
        for name, text in texts.items():
            (upper / name).parent.mkdir(parents=True, exist_ok=True)
            (upper / name).write_text(text)
        (upper / "opt/holdfast/bin/holdfast").chmod(0o755)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        (upper / "opt/holdfast/bin/python").symlink_to(f"{sys.base_prefix}/bin/{version}")
        (upper / "var/log/journal").mkdir(parents=True)


def _packages() -> str:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return f"/opt/holdfast/lib/{version}/site-packages"


@dataclass
class Installed(Command):
    """The command line as it is installed on such a machine."""

    host: SystemdHost | None = None

    def line(self, *words: str | bytes | Path) -> list[str | bytes | Path]:
        assert self.host is not None
        own = [f"HOLDFAST_HOME={self.home}", *(f"{key}={one}" for key, one in self.environ.items())]
        return [*self.host.prefix(), *own, *self.prefix, PROGRAM, *words]


@contextlib.contextmanager
def systemd_host(directory: Path) -> Iterator[SystemdHost]:
    """One while the block lasts."""
    with SystemdHost(directory) as host:
        yield host
