"""Both ends of a pool far away, as Python holds them, without anything between."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import ChunkMissing, Fenced, ImageMissing, IntegrityError, Invalid
from holdfast.engine import (
    ClientKey,
    DiskInput,
    DiskSink,
    DiskSource,
    Link,
    Pool,
    PoolConfig,
    Receiver,
    RemotePool,
)
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.engine import Image

KEY = bytes(range(32))


class Direct:
    """Carries words by calling."""

    def __init__(self, pool: Pool, receiver: Receiver | None = None) -> None:
        self.pool = pool
        self.receiver = receiver
        self.sent = 0
        self.threads: set[int] = set()

    def missing(self, names: bytes) -> bytes:
        assert self.receiver is not None
        self.threads.add(threading.get_ident())
        return self.receiver.missing(names)

    def send(self, body: bytes) -> None:
        assert self.receiver is not None
        self.sent += len(body)
        self.receiver.take(body)

    def read(self, wanted: bytes) -> bytes:
        return self.pool.deliver(wanted)

    def commit(self, draft: bytes) -> bytes:
        assert self.receiver is not None
        image = self.receiver.commit(
            draft, source="web:/srv", host="web", labels={"job": "7"}, finished_ns=2_000
        )
        return self.pool.manifest(image.id)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(str(tmp_path / "pool"), KEY, PoolConfig(), 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = random.Random(5)
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "large").write_bytes(made.randbytes(5_000_000))
    (top / "text").write_text("over and over again\n" * 100_000)
    for number in range(300):
        (top / "sub" / f"{number}").write_bytes(made.randbytes(number))
    return top


def back_up(pool: Pool, tree: Path, parent: bytes | None = None) -> tuple[Image, Direct]:
    link = Direct(pool, pool.receive(started_ns=1_000))
    assert link.receiver is not None
    remote = RemotePool(link.receiver.terms, link)
    assert remote.id == pool.id
    run = remote.backup(
        paths=[os.fsencode(tree)],
        source="what the client says",
        host="another",
        started_ns=time.time_ns(),
        labels={"job": "8"},
        parent=parent,
    )
    return run.result(), link


def test_an_image_is_what_the_media_server_says_and_holds_what_the_client_has(
    pool: Pool, tree: Path, tmp_path: Path
) -> None:
    image, link = back_up(pool, tree)
    assert (image.source, image.host, image.labels) == ("web:/srv", "web", {"job": "7"})
    assert (image.number, image.started_ns, image.finished_ns) == (1, 1_000, 2_000)
    assert image.paths == [os.fsencode(tree)]
    assert 5_000_000 < link.sent < 5_300_000
    back = tmp_path / "back"
    remote = RemotePool(pool.terms, Direct(pool))
    done = remote.restore(
        pool.manifest(image.id), paths=[], to=os.fsencode(back), verify=True
    ).result()
    assert (done.files, done.findings_total) == (302, 0)
    assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))
    assert pool.check(read_data=True).result().problems == []


def test_a_second_backup_sends_what_changed(pool: Pool, tree: Path) -> None:
    time.sleep(0.1)
    first, _ = back_up(pool, tree)
    with (tree / "large").open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"changed")
    second, link = back_up(pool, tree, pool.manifest(first.id))
    assert second.parent == first.id
    assert second.stats["files_changed"] == 1
    assert link.sent < 300_000


def test_what_the_link_raises_is_what_the_verb_raises(pool: Pool, tree: Path) -> None:
    class Broken(Direct):
        def send(self, body: bytes) -> None:
            raise Fenced("this job is another's")

    receiver = pool.receive(started_ns=1_000)
    link: Link = Broken(pool, receiver)
    run = RemotePool(receiver.terms, link).backup(
        paths=[os.fsencode(tree)], source="s", host="h", started_ns=1
    )
    with pytest.raises(Fenced, match="this job is another's"):
        run.result()
    receiver.abandon()
    with pytest.raises(Invalid, match="ended"):
        receiver.take(b"HFB1" + bytes(4))
    assert pool.image_ids() == []


def test_a_link_that_says_nonsense_ends_the_verb_with_words(pool: Pool, tree: Path) -> None:
    class Odd(Direct):
        def missing(self, names: bytes) -> bytes:
            return b""

    receiver = pool.receive(started_ns=1_000)
    run = RemotePool(receiver.terms, Odd(pool, receiver)).backup(
        paths=[os.fsencode(tree)], source="s", host="h", started_ns=1
    )
    with pytest.raises(Invalid, match="answered for 0"):
        run.result()


def test_what_is_not_what_it_says_is_refused(pool: Pool) -> None:
    with pytest.raises(Invalid, match="no body of blocks"):
        pool.receive(started_ns=1).take(b"rubbish")
    with pytest.raises(Invalid):
        pool.deliver(b"rubbish")
    with pytest.raises(ChunkMissing):
        pool.deliver(bytes(32) + (7).to_bytes(4, "little") + b"\0")
    with pytest.raises(ImageMissing):
        pool.manifest("ab" * 16)
    with pytest.raises(IntegrityError):
        RemotePool(b"rubbish", Direct(pool))


class Adopting(Direct):
    """Has an image of another pool adopted."""

    def __init__(self, pool: Pool, image: Image) -> None:
        super().__init__(pool, pool.receive(started_ns=1_000))
        self.image = image

    def commit(self, draft: bytes) -> bytes:
        assert self.receiver is not None
        image = self.receiver.adopt(draft, image=self.image.id, source=self.image.source)
        return self.pool.manifest(image.id)


def test_an_image_of_one_pool_becomes_one_of_another_as_it_is(
    pool: Pool, tree: Path, tmp_path: Path
) -> None:
    other = Pool.create(str(tmp_path / "other"), bytes(32), PoolConfig(), 0, naming=pool.naming)
    image, first = back_up(pool, tree)
    link = Adopting(other, image)
    assert link.receiver is not None
    assert link.receiver.vouch(image.id) is None
    run = RemotePool(link.receiver.terms, link).replicate(pool, image.id)
    copied = run.result()
    assert other.manifest(copied.id) == pool.manifest(image.id)
    assert abs(link.sent - first.sent) < 20_000
    counters = run.counters()
    assert counters.bytes_total == counters.bytes_read > 5_000_000
    assert [stage.name for stage in counters.stages][-1] == "send"
    # the next one, with what the first one has
    (tree / "more").write_bytes(bytes(1000))
    second, _ = back_up(pool, tree, pool.manifest(image.id))
    link = Adopting(other, second)
    assert link.receiver is not None
    base = link.receiver.vouch(image.id)
    assert base == pool.manifest(image.id)
    RemotePool(link.receiver.terms, link).replicate(pool, second.id, base).result()
    assert link.sent < 2_000
    shutil.rmtree(tmp_path / "pool")
    back = tmp_path / "back"
    other.restore(second.id, paths=[], to=os.fsencode(back), verify=True).result()
    assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))
    assert other.check(read_data=True).result().problems == []


def test_an_image_goes_to_another_pool_of_this_process(
    pool: Pool, tree: Path, tmp_path: Path
) -> None:
    other = Pool.create(str(tmp_path / "other"), bytes(32), PoolConfig(), 0, naming=pool.naming)
    image, _ = back_up(pool, tree)
    for base in (None, None, image.id):
        copied = pool.replicate(image.id, other, started_ns=5, base=base).result()
        assert other.manifest(copied.id) == pool.manifest(image.id)
    stranger = Pool.create(str(tmp_path / "stranger"), bytes(32), PoolConfig(), 0)
    with pytest.raises(Invalid, match="own way"):
        pool.replicate(image.id, stranger, started_ns=5).result()
    with pytest.raises(ImageMissing):
        pool.replicate("ab" * 16, other, started_ns=5).result()


def test_an_image_that_is_not_whole_is_not_adopted(pool: Pool, tree: Path, tmp_path: Path) -> None:
    other = Pool.create(str(tmp_path / "other"), bytes(32), PoolConfig(), 0, naming=pool.naming)
    image, _ = back_up(pool, tree)
    manifest = pool.manifest(image.id)
    receiver = other.receive(started_ns=1)
    with pytest.raises(Invalid, match="it is image"):
        receiver.adopt(manifest, image="ab" * 16, source=image.source)
    with pytest.raises(Invalid, match="it is one of 'web:/srv'"):
        receiver.adopt(manifest, image=image.id, source="mail:/srv")
    for _ in range(2):
        with pytest.raises(Invalid, match=r"is not whole in this pool: chunk [0-9a-f]{64} of"):
            receiver.adopt(manifest, image=image.id, source=image.source)
    assert other.image_ids() == []


def test_a_receiver_that_is_forgotten_leaves_nothing(pool: Pool, tmp_path: Path) -> None:
    receiver = pool.receive(started_ns=1)
    assert os.listdir(tmp_path / "pool" / "jobs")
    del receiver
    assert os.listdir(tmp_path / "pool" / "jobs") == []


@pytest.mark.parametrize("sealed", [None, False, True])
def test_a_machine_is_backed_up_read_and_restored_from_afar_sealed_or_not(
    pool: Pool, tmp_path: Path, sealed: bool | None
) -> None:
    key = None if sealed is None else ClientKey(bytes(range(32)))
    made = random.Random(5)
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(9_000_000)
        file.write(made.randbytes(1_000_000))
        file.seek(5_000_000)
        file.write(b"words " * 300_000)
    source, size = DiskSource.file(str(path)), 9_000_000

    def back_up(ranges: list[tuple[int, int, int]], parent: bytes | None) -> Image:
        receiver = pool.receive(started_ns=1_000)
        far = RemotePool(
            receiver.terms, Direct(pool, receiver), client_key=key, sealed_names=bool(sealed)
        )
        return far.backup_machine(
            files={"machine.json": b"{}"},
            disks=[DiskInput("vda", size, ranges, source, 0)],
            source="web:/srv",
            host="web",
            started_ns=1_000,
            parent=parent,
        ).result()

    first = back_up([(0, size, 1)], None)
    with path.open("r+b") as again:
        again.seek(6_000_000)
        again.write(b"other words")
    known = [(0, 5_000_000, 2), (5_000_000, 2_000_000, 1), (7_000_000, 2_000_000, 2)]
    second = back_up(known, pool.manifest(first.id))
    assert second.parent == first.id
    assert second.stats["bytes_read"] < 2_300_000
    manifest = pool.manifest(second.id)
    far = RemotePool(pool.terms, Direct(pool), client_key=key, sealed_names=bool(sealed))
    reader = far.open_file(manifest, b"/disks/vda")
    assert reader.read_at(0, size) == path.read_bytes()
    to = tmp_path / "restored"
    sink = DiskSink.file(str(to), size)
    done = far.restore_disk(manifest, b"/disks/vda", sink, verify=True).result()
    assert done.verified_files == 1
    assert to.read_bytes() == path.read_bytes()
    assert pool.verify(None, read_data=True).result().problems == []
