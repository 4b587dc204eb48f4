"""A media server with pools of its own: made, opened, served and looked after, as a master says."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import (
    Busy,
    Cancelled,
    HoldfastError,
    InputOutput,
    Invalid,
    NotAPool,
    PoolExists,
    Unreachable,
    WrongKey,
    WrongState,
)
from holdfast.base.ids import ClientName, ImageId, SourceName
from holdfast.control.database import Database
from holdfast.movers import session
from holdfast.movers.backup_run import BackupOrder, run_backup
from holdfast.movers.remote_agent import Transfer
from holdfast.movers.restore_run import RestoreOrder, run_restore
from holdfast.movers.transfer.machine import FarMovers, require_media
from holdfast.movers.transfer.remote_store import RemoteStore
from holdfast.site import media_server, own_pools
from holdfast.site.media_server import MediaServer
from holdfast.vault import PoolKey, create_pool, open_pool, open_pool_on, peek_pool
from holdfast.wire.identity import MachineRole, client_context
from holdfast.wire.messages import BackupWork, WorkOffer
from holdfast.wire.transfer_tokens import TransferGrant, sign, signing_key
from tests.kit.agents import Machine, free_place
from tests.kit.command import Command
from tests.kit.machines import POOL_KEY, Door, at_work, open_door, stand_in
from tests.kit.served import until
from tests.kit.trees import assert_same_tree, make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.movers.machine_home import MachineHome
    from holdfast.site.machines.sessions import Session

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
NAME = ClientName("media1")


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class Master:
    """What a master knows and hears of one media server."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.keys: dict[str, bytes] = {}
        self.heard: list[dict[str, Any]] = []
        self.committed: list[str] = []
        self.key = signing_key(POOL_KEY)
        self.knows_tokens = True
        answers = door.machines.answers
        answers["serve-data"] = self._serve_data
        answers["may-commit"] = lambda _, __: {"may": True}
        answers["committed"] = self._committed

    def _serve_data(self, _: Session, order: dict[str, Any]) -> dict[str, Any]:
        self.heard.append(order)
        said: dict[str, Any] = {"refused": []}
        if self.knows_tokens:
            said["token_key"] = text(self.key.public_key().public_bytes_raw())
        if self.keys:
            said["keys"] = {pool: text(key) for pool, key in self.keys.items()}
        return said

    def _committed(self, _: Session, order: dict[str, Any]) -> dict[str, Any]:
        self.committed.append(order["image"])
        return {"taken": True}

    def ask(self, **order: Any) -> dict[str, Any]:
        return self.door.machines.sessions.ask(NAME, order, 60)

    def make(self, path: Path, key: bytes = KEY, **more: Any) -> str:
        pool = str(self.ask(ask="make-pool", path=str(path), key=text(key), **more)["pool"])
        self.keys[pool] = key
        return pool

    @property
    def last(self) -> dict[str, Any]:
        return self.heard[-1] if self.heard else {}

    def await_open(self, *pools: str) -> None:
        until(lambda: self.last.get("open") == sorted(pools), f"{pools} to be open", 60)

    def store(self, pool: str) -> RemoteStore:
        me = self.door.machines.own_identity()
        context = client_context(me, (MachineRole.MEDIA,))
        check = partial(require_media, me)
        return RemoteStore(self.last["urls"], context, check, pool, deadline_s=30)

    def transfer(self, identity: Any, pool: str, **grant: Any) -> Transfer:
        made = TransferGrant(
            job=1,
            fence=1,
            client="web1",
            source="web1:/data",
            pool=pool,
            verbs=grant.pop("verbs", frozenset({"backup"})),
            expires_s=SystemClock().now_ns() // 10**9 + 900,
            **grant,
        )
        work = WorkOffer(1, 1, 60.0, BackupWork("web1", "web1:/data", ("/data",)))
        urls = tuple(self.last["urls"])
        return Transfer(work, urls, pool, lambda: sign(made, self.key), identity)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(session, "LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(media_server, "LOOK_EVERY_S", 0.1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "control")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def master(database: Database, tmp_path: Path) -> Iterator[Master]:
    with open_door(stand_in(database, tmp_path)) as door:
        yield Master(door)


@pytest.fixture
def home(master: Master, tmp_path: Path) -> MachineHome:
    return master.door.joined(tmp_path / "home", NAME, role=MachineRole.MEDIA)


@contextlib.contextmanager
def serving(master: Master, home: MachineHome) -> Iterator[MediaServer]:
    """A media server without a site in its home, while the block lasts."""
    told = len(master.heard)
    server = MediaServer(home, None, ("127.0.0.1", 0))
    with at_work(server):
        until(lambda: len(master.heard) > told, "the media server to speak", 30)
        yield server


def test_a_pool_is_made_used_and_opened_again_by_a_key_that_lies_nowhere(
    master: Master, home: MachineHome, tmp_path: Path
) -> None:
    tree, disk = tmp_path / "tree", tmp_path / "disks" / "one"
    make_tree(tree)
    agent = master.door.joined(tmp_path / "agent", "web1").identity
    order = BackupOrder(ClientName("web1"), (os.fsencode(tree),), name=SourceName("web1:/data"))
    first = create_pool(str(tmp_path / "main"), secret=PoolKey(OTHER_KEY), clock=SystemClock())
    with serving(master, home):
        assert (master.last["pool"], master.last["own"]) == (None, [])
        pool = master.make(disk, naming=text(first.naming), config={"pack_bytes": 1 << 20})
        assert open_pool(str(disk), secret=PoolKey(KEY), cache_dir=None).naming == first.naming
        master.await_open(pool)
        image = FarMovers()(master.transfer(agent, pool)).back_up(order, lambda _: None)
        assert master.committed == [image.id]
        assert list(tmp_path.glob("disks/*/keys")) == []
    lines = (home.home / "pools.toml").read_text().splitlines()
    assert f'{pool} = "{disk}"' in lines
    for file in [one for one in tmp_path.rglob("*") if one.is_file()]:
        assert KEY not in file.read_bytes(), file
        assert text(KEY).encode() not in file.read_bytes(), file
    # Started anew, it opens by what the master tells.
    with serving(master, home):
        master.await_open(pool)
        reading = master.transfer(
            agent, pool, verbs=frozenset({"restore"}), images=frozenset({image.id})
        )
        back = tmp_path / "back"
        FarMovers()(reading).restore(
            RestoreOrder(ImageId(image.id), (), os.fsencode(back)), lambda _: None
        )
        assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))
        # And the master has it as a pool of its own.
        with contextlib.closing(master.store(pool)) as store:
            far = open_pool_on(store, key=PoolKey(KEY), cache_dir=tmp_path / "cache")
            assert far.image_ids() == [image.id]
            to = RestoreOrder(ImageId(image.id), (), os.fsencode(tmp_path / "far"))
            run_restore(far, to)
            assert_same_tree(tree, os.fsencode(tmp_path / "far") + os.fsencode(tree))


def test_a_master_that_tells_no_key_gets_no_pool_and_no_token_is_taken(
    master: Master, home: MachineHome, tmp_path: Path
) -> None:
    with serving(master, home):
        pool = master.make(tmp_path / "disk")
    master.keys.clear()
    master.knows_tokens = False
    agent = master.door.joined(tmp_path / "agent", "web1").identity
    with serving(master, home) as server:
        until(lambda: master.last["own"] == [pool], "it to say what it has")
        assert master.last["open"] == []
        with pytest.raises(Busy, match="waits for its key"):
            server._own.get(pool)
        with pytest.raises(Busy):
            server._tokens.verify(b"", b"")
        with contextlib.closing(master.store(pool)) as store:
            store._deadline_s = 0.3
            with pytest.raises(Unreachable, match="waits for its key"):
                open_pool_on(store, key=PoolKey(KEY), cache_dir=None)
        said = master.ask(ask="open-pool", pool=pool, key=text(KEY))
        assert said == {"answer": "open-pool", "pool": pool}
        master.await_open(pool)
        with contextlib.closing(master.store(pool)) as store:
            assert open_pool_on(store, key=PoolKey(KEY), cache_dir=None).image_ids() == []
    del agent


def test_what_is_made_twice_is_made_once(master: Master, home: MachineHome, tmp_path: Path) -> None:
    with serving(master, home):
        pool = master.make(tmp_path / "disk")
        assert master.make(tmp_path / "disk") == pool
        with pytest.raises(PoolExists):
            master.make(tmp_path / "disk", OTHER_KEY)
    # Cut off before it was written down.
    (home.home / "pools.toml").unlink()
    with serving(master, home):
        assert master.last["own"] == []
        assert master.make(tmp_path / "disk") == pool
        master.await_open(pool)


def test_a_disk_that_is_gone_is_told_and_others_go_on(
    master: Master, home: MachineHome, tmp_path: Path
) -> None:
    with serving(master, home) as server:
        first, second = master.make(tmp_path / "one"), master.make(tmp_path / "two", OTHER_KEY)
        master.await_open(first, second)
        (tmp_path / "one").rename(tmp_path / "away")
        (tmp_path / "one").mkdir()
        master.await_open(second)
        assert "is its disk mounted?" in master.last["problems"][first]
        assert master.last["own"] == [second]
        with pytest.raises(InputOutput, match="is its disk mounted"):
            server._own.get(first)
        # Nobody makes another in its place while it is away.
        with pytest.raises(WrongState, match=first):
            master.make(tmp_path / "one")
        assert list((tmp_path / "one").iterdir()) == []
        with contextlib.closing(master.store(second)) as store:
            assert open_pool_on(store, key=PoolKey(OTHER_KEY), cache_dir=None).image_ids() == []
        (tmp_path / "one").rmdir()
        (tmp_path / "away").rename(tmp_path / "one")
        master.await_open(first, second)
        assert master.last["problems"] == {}


def test_a_disk_that_came_to_another_place_is_opened_there(
    master: Master, home: MachineHome, tmp_path: Path
) -> None:
    with serving(master, home):
        pool = master.make(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "moved")
    with serving(master, home):
        until(lambda: pool in master.last["problems"], "it to be missed")
        with pytest.raises(NotAPool):
            master.ask(ask="open-pool", pool="cd" * 16, key=text(KEY))
        elsewhere = str(tmp_path / "elsewhere")
        with pytest.raises(NotAPool):
            master.ask(ask="open-pool", pool=pool, key=text(KEY), path=elsewhere)
        moved = str(tmp_path / "moved")
        with pytest.raises(WrongKey):
            master.ask(ask="open-pool", pool=pool, key=text(OTHER_KEY), path=moved)
        master.ask(ask="open-pool", pool=pool, key=text(KEY), path=moved)
        master.await_open(pool)


def test_a_disk_that_stands_still_keeps_nobody_waiting(
    master: Master, home: MachineHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(master, home):
        first, second = master.make(tmp_path / "one"), master.make(tmp_path / "two", OTHER_KEY)
    go_on = threading.Event()

    def peek(place: str) -> bytes:
        if place == str(tmp_path / "one"):
            assert go_on.wait(60)
        return peek_pool(place)

    monkeypatch.setattr("holdfast.site.own_pools.peek_pool", peek)
    monkeypatch.setattr(own_pools.OwnPools.look, "__defaults__", (0.5,))
    try:
        with serving(master, home):
            master.await_open(second)
            assert "does not answer" in master.last["problems"][first]
            go_on.set()
            master.await_open(first, second)
    finally:
        go_on.set()


def test_a_pool_is_cared_for_where_its_disk_is(
    master: Master, home: MachineHome, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree)
    with serving(master, home):
        pool = master.make(tmp_path / "disk")
        near = open_pool(str(tmp_path / "disk"), secret=PoolKey(KEY), cache_dir=None)
        order = BackupOrder(ClientName("web1"), (os.fsencode(tree),))
        made = run_backup(near, order, SystemClock())

        def care(ask: str, **more: Any) -> str:
            said = master.ask(ask=ask, pool=pool, **more)
            assert said["answer"] == ask
            return str(said["events"][0]["cause"] + ": " + said["events"][0]["message"])

        assert care("check", read_data=True).endswith(": 0 problems")
        assert care("verify", images=[made.id]).startswith("verified: 1 images")
        assert care("rebuild-index").startswith("rebuilt: ")
        near.expire(made.id)
        assert "would be freed" in care("collect-garbage", dry_run=True)
        before = sum(one.stat().st_size for one in (tmp_path / "disk").rglob("*") if one.is_file())
        assert care("collect-garbage").startswith("collected: ")
        after = sum(one.stat().st_size for one in (tmp_path / "disk").rglob("*") if one.is_file())
        assert after < before
        for wrong in ({"pool": "cd" * 16}, {"pool": 7}, {"pool": pool, "read_data": "x"}):
            with pytest.raises(HoldfastError) as caught:
                master.ask(ask="check", **wrong)
            assert caught.value.code in ("not-a-pool", "invalid")


def test_long_work_is_asked_for_once_and_keeps_no_other_answer_waiting(
    master: Master, home: MachineHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, begun = threading.Event(), []

    def slow(*_: Any, **__: Any) -> list[Any]:
        begun.append(time.monotonic())
        assert go_on.wait(60)
        return []

    monkeypatch.setattr("holdfast.site.pool_care.check", slow)
    with serving(master, home):
        pool = master.make(tmp_path / "disk")
        order = {"ask": "check", "pool": pool, "work": "w1"}
        waiting = [
            threading.Thread(target=lambda: master.ask(**order), daemon=True) for _ in range(8)
        ]
        for one in waiting:
            one.start()
        assert master.ask(**order, wait_s=0.05) == {"answer": "check", "running": True}
        with pytest.raises(Busy):
            master.ask(ask="collect-garbage", pool=pool)
        with pytest.raises(Busy):
            master.ask(ask="check", pool=pool, work="w2")
        with pytest.raises(Invalid):
            master.ask(ask="verify", pool=pool, work="w1")
        assert master.make(tmp_path / "other", OTHER_KEY)
        go_on.set()
        for one in waiting:
            one.join(30)
        # Whoever lost the answer has it once more; another work is another one.
        assert master.ask(**order) == {"answer": "check", "events": []}
        assert len(begun) == 1
        master.ask(ask="check", pool=pool)
        assert len(begun) == 2


def test_work_that_nobody_wants_any_more_ends(
    master: Master, home: MachineHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def endless(_: Any, report: Any, **__: Any) -> list[Any]:
        while True:
            begun.set()
            report(None)
            time.sleep(0.01)

    monkeypatch.setattr("holdfast.site.pool_care.check", endless)
    with serving(master, home):
        pool = master.make(tmp_path / "disk")
        order = {"ask": "check", "pool": pool, "work": "w1"}
        assert master.ask(**order, wait_s=0.01)["running"]
        assert begun.wait(30)
        assert master.ask(ask="stop-work", work="w1") == {"answer": "stop-work"}
        with pytest.raises(Cancelled, match="nobody wants it"):
            master.ask(**order)
        assert master.ask(ask="stop-work", work="never") == {"answer": "stop-work"}
        # One that is at work when the media server ends is given up with it.
        assert master.ask(**{**order, "work": "w2"}, wait_s=0.01)["running"]


def await_packs(disk: Path, more_than: int) -> None:
    """Look so often that little comes between two looks."""
    end_s = time.monotonic() + 60
    while len(list(disk.glob("packs/*/*"))) <= more_than:
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_a_media_server_that_is_killed_in_the_middle_costs_the_master_time_alone(
    master: Master, home: MachineHome, tmp_path: Path
) -> None:
    tree, disk = tmp_path / "tree", tmp_path / "disk"
    make_tree(tree)
    for number in range(32):
        (tree / f"large {number}").write_bytes(os.urandom(4_000_000))
    listen = ("media", "run", "--listen", free_place(), "--address", "127.0.0.1")
    machine = Machine(Command(home.home, {}), NAME, listen)
    machine.start()
    try:
        until(lambda: master.heard, "the media server to speak", 60)
        pool = master.make(disk, config={"pack_bytes": 1 << 20})
        master.await_open(pool)
        with contextlib.closing(master.store(pool)) as store:
            far = open_pool_on(store, key=PoolKey(KEY), cache_dir=None)
            order = BackupOrder(ClientName("web1"), (os.fsencode(tree),))
            made: list[Any] = []
            backing_up = threading.Thread(
                target=lambda: made.append(run_backup(far, order, SystemClock()))
            )
            backing_up.start()
            for _ in range(2):
                await_packs(disk, len(list(disk.glob("packs/*/*"))) + 2)
                assert not made
                machine.kill()
                machine.start()
            backing_up.join(120)
            assert made
            back = tmp_path / "back"
            run_restore(far, RestoreOrder(ImageId(made[0].id), (), os.fsencode(back)))
            assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))
        said = master.ask(ask="check", pool=pool, read_data=True)
        assert said["events"][0]["message"].endswith(": 0 problems"), said
        machine.stop()
    finally:
        if machine.process is not None and machine.process.poll() is None:
            machine.kill()
    assert KEY not in machine.log.read_bytes()
