"""Backups to another machine beside other programs: ``python benchmarks/transfer_peers.py``.

``[--mib 2048] [--rounds 3] [--json FILE]``. Over loopback, each end a process of its own, all files
in memory, data that can't be compressed and that is not known yet, encrypted by each:

- one agent and one media server of a served site, over mutual TLS 1.3;
- restic to rest-server, and kopia to its own server, over TLS;
- borg over ssh, to a real sshd.

In each round all go one right after the other, each first in turn. Ratios are worth something only
within one run; where other work goes on, those of processor seconds are worth more. Needs sshd and
ssh-keygen (Debian: openssh-server, openssh-client); peers that can't be had are named and left
out.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import json
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from benchmarks.real_site import (  # noqa: E402 - the path comes first
    MEMORY,
    protect,
    real_site,
    run_jobs,
    unknown_data,
)
from benchmarks.tools.borg import Borg  # noqa: E402
from benchmarks.tools.install import GoProgram, go_program  # noqa: E402
from benchmarks.tools.kopia import Kopia  # noqa: E402
from benchmarks.tools.restic import Restic  # noqa: E402
from benchmarks.tools.tool import PASSPHRASE, ToolMissingError  # noqa: E402
from tests.kit.agents import free_place  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

REST_SERVER = GoProgram(
    "rest-server", "github.com/restic/rest-server", "cmd/rest-server", "v0.14.0"
)
USER = "alpha@bench"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a backup took.

    Attributes:
        wall_s: From the command's start to its end.
        cpu_s: Of all processes at both ends meanwhile.
    """

    wall_s: float
    cpu_s: float


class Peer(Protocol):
    """A program with its server."""

    @property
    def name(self) -> str:
        """What it is called in the table."""
        ...

    def backup(self, directory: Path, data: Path) -> Taken:
        """A first backup, into a repository that is made below a directory."""
        ...


class Ours:
    """The agent and the media server of a site; the master gives out the job."""

    name = "holdfast"

    def backup(self, directory: Path, data: Path) -> Taken:
        with (
            real_site(directory / "site") as network,
            network.media_server("media1") as media,
            network.machine("web1") as agent,
        ):
            protect(network, "web1", data)
            processes = (network.running.process, media.process, agent.process)
            pids = [one.pid for one in processes if one is not None]
            before_s = [_cpu_s(pid) for pid in pids]
            wall_s = run_jobs(network, "web1")
            each_s = [_cpu_s(pid) - own for pid, own in zip(pids, before_s, strict=True)]
            told = ", ".join(f"{one:.1f}" for one in each_s)
            print(f"processor seconds of master, media server, agent: {told}", flush=True)
            return Taken(wall_s, sum(each_s))


class ResticToServer:
    """With a certificate made for it; the server asks for no password."""

    def __init__(self, tools: Path) -> None:
        self._restic, self._server = Restic(tools), go_program(REST_SERVER, tools)
        self.name = f"restic {self._restic.version} to rest-server {self._server.version}"
        self._program = go_program(
            GoProgram("restic", "github.com/restic/restic", "cmd/restic", "v0.19.1"), tools
        ).program

    def backup(self, directory: Path, data: Path) -> Taken:
        certificate, key = _certificate(directory)
        place = free_place()
        words = ["--path", f"{directory}/pool", "--no-auth", "--listen", place, "--tls"]
        words += ["--tls-cert", str(certificate), "--tls-key", str(key)]
        environ = {
            **_environ(directory),
            "RESTIC_PASSWORD": PASSPHRASE,
            "RESTIC_REPOSITORY": f"rest:https://{place}/",
            "RESTIC_CACHE_DIR": f"{directory}/cache",
            "RESTIC_CACERT": str(certificate),
        }
        with _server([self._server.program, *words], place, environ) as server:
            _run([self._program, "--quiet", "init"], environ)
            return _measured([self._program, "--quiet", "backup", str(data)], environ, server)


class KopiaToServer:
    """With a certificate that the server made for itself."""

    def __init__(self, tools: Path) -> None:
        made = Kopia(tools)
        self.name = f"kopia {made.version} to its server"
        self._program = os.fspath(tools / "bin" / "kopia")
        if not Path(self._program).exists():
            self._program = shutil.which("kopia") or "kopia"

    def backup(self, directory: Path, data: Path) -> Taken:
        certificate, key = _certificate(directory)
        place = free_place()
        quiet = ["--no-progress", "--log-level=error", "--file-log-level=error"]

        def environ(whose: str) -> dict[str, str]:
            return {
                **_environ(directory),
                "KOPIA_PASSWORD": PASSPHRASE,
                "KOPIA_CHECK_FOR_UPDATES": "false",
                "KOPIA_USE_KEYRING": "false",
                "KOPIA_CONFIG_PATH": f"{directory}/{whose}.config",
                "KOPIA_CACHE_DIRECTORY": f"{directory}/{whose}-cache",
                "KOPIA_LOG_DIR": f"{directory}/{whose}-log",
            }

        theirs = environ("server")
        create = ["repository", "create", "filesystem", "--path", f"{directory}/pool"]
        _run([self._program, *quiet, *create, "--block-hash", "BLAKE3-256-128"], theirs)
        _run([self._program, *quiet, "server", "user", "add", USER, "--user-password", "x"], theirs)
        start = ["server", "start", "--address", f"https://{place}", "--server-password", "x"]
        start += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
        with _server([self._program, *quiet, *start], place, theirs) as server:
            shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
            name, _, host = USER.partition("@")
            connect = ["repository", "connect", "server", "--url", f"https://{place}"]
            connect += ["--server-cert-fingerprint", shown, "--override-username", name]
            connect += ["--override-hostname", host]
            ours = environ("client") | {"KOPIA_PASSWORD": "x"}
            _run([self._program, *quiet, *connect], ours)
            words = [self._program, *quiet, "snapshot", "create", str(data)]
            return _measured(words, ours, server)


class BorgOverSsh:
    """To an sshd of its own, with its defaults."""

    def __init__(self, tools: Path) -> None:
        made = Borg(tools)
        self.name = f"borg {made.version} over ssh"
        self._mode = made.settings.partition(",")[0]
        self._program = os.fspath(tools / "borg" / "bin" / "borg")
        if not Path(self._program).exists():
            self._program = shutil.which("borg") or "borg"
        sshd = shutil.which("sshd", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
        if sshd is None or shutil.which("ssh-keygen") is None:
            raise ToolMissingError("there is no sshd, or no ssh-keygen: Debian has openssh-server")
        self._sshd = sshd

    def backup(self, directory: Path, data: Path) -> Taken:
        place = free_place()
        host, _, port = place.partition(":")
        for name in ("host", "user"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{directory}/{name}"]
            _run(make, _environ(directory))
        shutil.copy(directory / "user.pub", directory / "authorized")
        config = directory / "sshd_config"
        config.write_text(
            f"ListenAddress {place}\nHostKey {directory}/host\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {directory}/authorized\nPermitRootLogin yes\nUsePAM no\n"
            "PasswordAuthentication no\n"
        )
        # What sshd insists on when root starts it.
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        options = f"-i {directory}/user -p {port} -o StrictHostKeyChecking=no -o LogLevel=ERROR"
        environ = {
            **_environ(directory),
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": f"{directory}/state",
            "BORG_REMOTE_PATH": self._program,
            "BORG_RSH": f"ssh {options} -o UserKnownHostsFile={directory}/known",
            "BORG_REPO": f"ssh://{getpass.getuser()}@{host}:{port}{directory}/pool",
        }
        with _server([self._sshd, "-D", "-e", "-f", str(config)], place, environ) as server:
            _run([self._program, "init", "--encryption", self._mode], environ)
            return _measured([self._program, "create", "::first", str(data)], environ, server)


def main(words: list[str] | None = None) -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description="Measure backups to another machine.")
    options.add_argument("--mib", type=int, default=2048, help="how much goes over")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path, help="where to write the figures, too")
    options.add_argument("--tools", type=Path, help="where peers are installed")
    given = options.parse_args(words)
    named = os.environ.get("HOLDFAST_BENCH_DIR")
    tools = given.tools or Path(named or ROOT / "benchmarks" / "work") / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    peers = provided(tools)
    before = os.getloadavg()[0]
    took: dict[str, list[Taken]] = {one.name: [] for one in peers}
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        data = Path(made) / "data"
        unknown_data(data, given.mib)
        for number in range(given.rounds):
            first = number % len(peers)
            for peer in (*peers[first:], *peers[:first]):
                place = Path(made) / "place"
                place.mkdir()
                one = peer.backup(place, data)
                took[peer.name].append(one)
                said = f"{one.wall_s:.2f} s, {one.cpu_s:.2f} CPU s"
                print(f"round {number + 1}: {peer.name}: {said}", flush=True)
                shutil.rmtree(place)
    show(took, given.mib, given.json, before)
    return 0


def provided(tools: Path) -> list[Peer]:
    """Those that can be had."""
    found: list[Peer] = [Ours()]
    for make in (ResticToServer, KopiaToServer, BorgOverSsh):
        try:
            found.append(make(tools))
        except ToolMissingError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def show(took: dict[str, list[Taken]], mib: int, into: Path | None, before: float) -> None:
    """Medians, and how many times as much as ours in the same round."""
    ours = took[Ours.name]
    figures = {}
    print(f"{'':40} {'seconds':>8} {'MiB/s':>6} {'times ours':>18} {'CPU s':>7} {'times ours':>18}")
    for name, rounds in took.items():
        wall = [one.wall_s / own.wall_s for one, own in zip(rounds, ours, strict=True)]
        cpu = [one.cpu_s / own.cpu_s for one, own in zip(rounds, ours, strict=True)]
        wall_s = statistics.median(one.wall_s for one in rounds)
        cpu_s = statistics.median(one.cpu_s for one in rounds)
        figures[name] = {
            "seconds": [round(one.wall_s, 2) for one in rounds],
            "times_ours": round(statistics.median(wall), 2),
            "cpu_seconds": [round(one.cpu_s, 2) for one in rounds],
            "cpu_times_ours": round(statistics.median(cpu), 2),
        }
        print(
            f"{name:40} {wall_s:8.2f} {mib / wall_s:6.0f} {_spread(wall):>18} "
            f"{cpu_s:7.2f} {_spread(cpu):>18}"
        )
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    print(f"processes wanting to run, before and after: {load[0]}, {load[1]}")
    if into is not None:
        result = {"processors": os.cpu_count(), "load": load, "mib": mib, "figures": figures}
        into.write_text(json.dumps(result, indent=2) + "\n")


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process and of those of its children that have ended."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


def _measured(command: list[str], environ: dict[str, str], server: int) -> Taken:
    """Run a client to its end; what it and its server took."""
    before_s = _cpu_s(server)
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall_s = _run(command, environ)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    client_s = now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime
    # Whoever served this one connection ends a moment after it.
    time.sleep(1)
    return Taken(wall_s, client_s + _cpu_s(server) - before_s)


def _environ(directory: Path) -> dict[str, str]:
    path = os.environ.get("PATH", "/usr/bin:/bin")
    return {"PATH": path, "HOME": str(directory), "TMPDIR": str(directory)}


def _run(command: list[str], environ: dict[str, str]) -> float:
    """Run a command to its end; how long it took."""
    began_s = time.perf_counter()
    with ExitStack() as stack:
        said = stack.enter_context(tempfile.TemporaryFile())
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False
        )
        took_s = time.perf_counter() - began_s
        said.seek(0)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command[:4])} … failed:\n{said.read().decode()[-2000:]}")
    return took_s


@contextmanager
def _server(command: list[str], place: str, environ: dict[str, str]) -> Iterator[int]:
    """A server while the block lasts, once it listens; its process."""
    host, _, port = place.partition(":")
    process = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command[:4])} … ended with {process.returncode}")
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for this machine's loopback, and its key."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", str(key)]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate)]
    _run(command, _environ(directory))
    return certificate, key


if __name__ == "__main__":
    sys.exit(main())
