"""Measure data between two machines: ``python benchmarks/transfer.py [--mib 1024] [--json FILE]``.

With ``--bodies``, only how fast bodies of several lengths go over the link.

Over loopback, mutual TLS 1.3, each end a process of its own, all files in memory:

- a plain copy by ``openssl s_client`` to ``openssl s_server``, of zeros: what TLS costs at all;
- bodies of 8 MiB over the link to a media server that throws them away, and back;
- a backup of data that can't be compressed into an empty pool, and its restore.

Prints a table with shares of the plain copy. The ratios are worth something only within one run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, os.fspath(ROOT))

from holdfast.base.clock import SystemClock  # noqa: E402 - the path comes first
from holdfast.base.ids import ClientName, ImageId  # noqa: E402
from holdfast.engine import Pool, PoolConfig, RemotePool  # noqa: E402
from holdfast.movers.backup_run import BackupOrder  # noqa: E402
from holdfast.movers.restore_run import RestoreOrder  # noqa: E402
from holdfast.movers.transfer.client import TransferLink  # noqa: E402
from holdfast.movers.transfer.paths import Path as LinkPath  # noqa: E402
from holdfast.movers.transfer.remote_runs import (  # noqa: E402
    TransferTarget,
    remote_backup,
    remote_restore,
)
from tests.kit.machine_identities import (  # noqa: E402
    Machines,
    client_context,
    server_context,
)
from tests.kit.transfer_site import transfer_site  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.engine import Image
    from holdfast.movers.transfer.ports import MediaPool

BODY = os.urandom(8 << 20)
MEMORY = Path("/dev/shm")
PORT = 29_617


class Nowhere:
    """A pool that throws away what it gets; and a backup into it, of which nothing can be made."""

    terms = b""

    def receive(self, *, started_ns: int) -> Nowhere:  # noqa: ARG002
        return self

    def missing(self, names: bytes) -> bytes:
        raise NotImplementedError

    def take(self, body: bytes) -> None:  # noqa: ARG002
        return

    def commit(
        self, draft: bytes, *, source: str, host: str, labels: dict[str, str], finished_ns: int
    ) -> Image:
        raise NotImplementedError

    def vouch(self, image: str, /) -> bytes | None:
        raise NotImplementedError

    def adopt(self, manifest: bytes, *, image: str, source: str) -> Image:
        raise NotImplementedError

    def abandon(self) -> None:
        return

    def manifest(self, image: str, /) -> bytes:  # noqa: ARG002
        return b""

    def deliver(
        self,
        wanted: bytes,  # noqa: ARG002
        *,
        link_bytes_per_s: int | None = None,  # noqa: ARG002
    ) -> bytes:
        return BODY


def main(words: list[str] | None = None) -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description="Measure data between two machines.")
    options.add_argument("--mib", type=int, default=1024, help="how much goes over")
    options.add_argument("--bodies", action="store_true", help="only bodies of several lengths")
    options.add_argument("--json", type=Path, help="where to write the figures, too")
    given = options.parse_args(words)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        rates = (of_bodies if given.bodies else measured)(Path(made), given.mib)
    plain = rates["openssl s_client to s_server"]
    for what, rate in rates.items():
        print(f"{what:44} {rate / 1e6:7.0f} MB/s  {rate / plain:5.2f}")
    if given.json is not None:
        load = [round(before, 1), round(os.getloadavg()[0], 1)]
        figures = {what: round(rate) for what, rate in rates.items()}
        result = {"processors": os.cpu_count(), "load": load, "mib": given.mib, "figures": figures}
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def of_bodies(directory: Path, mib: int) -> dict[str, float]:
    """Bytes a second sent in bodies of each length by two connections, the best of three turns."""
    rates = {"openssl s_client to s_server": first(directory, mib)}
    lengths = [BODY[: kib << 10] for kib in (256, 512, 1024, 2048, 4096, 8192)]
    lengths += [BODY * times for times in (2, 4, 8)]
    with served(directory, None) as site:
        for _ in range(3):
            for body in lengths:
                what = f"bodies of {len(body) >> 10:,} KiB"
                rate = link(directory, site, mib, 2, "send", body)
                rates[what] = max(rate, rates.get(what, 0))
    return rates


def first(directory: Path, mib: int) -> float:
    """Make the machines, and a plain copy between them."""
    machines = Machines(directory)
    machines.server()
    machines.client("alpha")
    return openssl(directory, mib)


def measured(directory: Path, mib: int) -> dict[str, float]:
    """Bytes a second of each work."""
    rates = {"openssl s_client to s_server": first(directory, mib)}
    with served(directory, None) as site:
        for connections in (1, 2):
            words = f"{connections} connection{'s' * (connections > 1)}"
            rates[f"link, bodies sent, {words}"] = link(directory, site, mib, connections, "send")
            rates[f"link, bodies read, {words}"] = link(directory, site, mib, connections, "read")
    pool = Pool.create(str(directory / "pool"), bytes(range(32)), PoolConfig(), 0)
    tree = directory / "tree"
    tree.mkdir()
    for number in range(8):
        with (tree / f"{number}").open("wb") as file:
            for _ in range(mib // 8):
                file.write(os.urandom(1 << 20))
    with served(directory, pool.id.hex()) as site:
        target = TransferTarget(
            urls=(f"https://127.0.0.1:{site.port}",),
            context=client_context(directory, "alpha"),
            token=lambda: site.token,
            remote_pool=RemotePool,
        )
        began_s = time.perf_counter()
        order = BackupOrder(ClientName("alpha"), (os.fsencode(tree),))
        image = remote_backup(target, order, SystemClock())
        rates["backup, nothing known"] = (mib << 20) / (time.perf_counter() - began_s)
        site.token = site.reading(image.id)
        began_s = time.perf_counter()
        back = RestoreOrder(ImageId(image.id), (), os.fsencode(directory / "back"))
        remote_restore(target, back)
        rates["restore"] = (mib << 20) / (time.perf_counter() - began_s)
    return rates


def openssl(directory: Path, mib: int) -> float:
    """A plain copy of zeros."""
    server_pem, client_pem = directory / "media-server.pem", directory / "agent-alpha.pem"
    authority = directory / "authority.pem"
    server = subprocess.Popen(
        [
            *("openssl", "s_server", "-accept", str(PORT), "-quiet", "-tls1_3", "-Verify", "2"),
            *("-cert", str(server_pem), "-key", str(server_pem), "-CAfile", str(authority)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1)
    began_s = time.perf_counter()
    with subprocess.Popen(
        [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", "-quiet", "-no_ign_eof"),
            *("-cert", str(client_pem), "-key", str(client_pem), "-CAfile", str(authority)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as client:
        assert client.stdin is not None
        for _ in range(mib):
            client.stdin.write(bytes(1 << 20))
        client.stdin.close()
        client.wait()
    took_s = time.perf_counter() - began_s
    server.terminate()
    server.communicate()
    return (mib << 20) / took_s


def link(
    directory: Path, site: Any, mib: int, connections: int, verb: str, body: bytes = BODY
) -> float:
    """Bodies over the link alone, by as many threads as the engine has."""
    token = site.token if verb == "send" else site.reading("any")
    made = TransferLink(
        [LinkPath("127.0.0.1", site.port)],
        client_context(directory, "alpha"),
        lambda: token,
        connections_per_path=connections,
    )
    bodies = iter(range((mib << 20) // len(body)))
    if verb == "send":
        made.open_upload(read_all=False)

    def work() -> None:
        for _ in bodies:
            if verb == "send":
                made.send(body)
            else:
                made.read(bytes(32) + b"\1" + bytes(4))

    with ThreadPoolExecutor(3) as threads:
        began_s = time.perf_counter()
        for done in [threads.submit(work) for _ in range(3)]:
            done.result()
        took_s = time.perf_counter() - began_s
    made.abandon()
    made.close()
    return (mib << 20) / took_s


@contextmanager
def served(directory: Path, pool_id: str | None) -> Iterator[Any]:
    """A media server in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, directory, pool_id)
    )
    process.start()
    port, token = ours.recv()

    def reading(image: str) -> str:
        ours.send(image)
        return str(ours.recv())

    try:
        yield SimpleNamespace(port=port, token=token, reading=reading)
    finally:
        ours.send(None)
        process.join()


def _serve(pipe: Any, directory: Path, pool_id: str | None) -> None:
    pool: MediaPool = Nowhere()
    more: dict[str, Any] = {}
    if pool_id is not None:
        pool = Pool.open(str(directory / "pool"), bytes(range(32)))
        more = {"pool_id": pool_id}
    machines: Any = SimpleNamespace(server=lambda: server_context(directory))
    with transfer_site(directory, pool, machines=machines, **more) as site:
        pipe.send((site.port, site.token()))
        while (image := pipe.recv()) is not None:
            verbs, images = frozenset({"restore"}), frozenset({image})
            pipe.send(site.token(job=2, verbs=verbs, images=images))


if __name__ == "__main__":
    sys.exit(main())
