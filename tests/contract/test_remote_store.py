"""A store on a media server when answers are lost, servers end and disks fail."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.base.clock import SystemClock
from holdfast.base.errors import NotAPool, Unreachable
from holdfast.base.ids import ClientName, ImageId
from holdfast.movers.backup_run import BackupOrder, run_backup
from holdfast.movers.pool_runs import run_check, run_garbage_collection
from holdfast.movers.restore_run import RestoreOrder, run_restore
from holdfast.movers.transfer import remote_store as remote_module
from holdfast.movers.transfer import store_routes
from holdfast.movers.transfer.connection import Connection
from holdfast.vault import PoolKey, create_pool, open_pool, open_pool_on
from holdfast.vault.backends.open_directory import OpenDirectory, StagedObject
from tests.kit.store_site import POOL, WRITER, StoreSite, store_site
from tests.kit.trees import assert_same_tree, change_tree, make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.movers.transfer.connection import Request, Response
    from holdfast.movers.transfer.remote_store import RemoteStore

KEY = PoolKey(bytes(range(32)))


class Network:
    """What goes wrong with the next requests, one each: nothing, lost on the way, answer lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[str] = []
        self.between: Any = lambda: None
        real = Connection.exchange

        def exchange(
            connection: Connection, request: Request, token: str | None, **_: Any
        ) -> Response:
            fault = self.faults.pop(0) if self.faults else ""
            if fault == "lost":
                raise ConnectionResetError("lost on the way")
            answer = real(connection, request, token)
            if fault:
                self.between()
                raise ConnectionResetError("the answer was lost")
            return answer

        monkeypatch.setattr(Connection, "exchange", exchange)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[OpenDirectory]:
    (tmp_path / "disk").mkdir()
    made = OpenDirectory(str(tmp_path / "disk"))
    yield made
    made.close()


@pytest.fixture
def site(disk: OpenDirectory) -> Iterator[StoreSite]:
    with store_site(disk) as made:
        yield made


@pytest.fixture
def store(site: StoreSite) -> Iterator[RemoteStore]:
    with contextlib.closing(site.remote()) as made:
        yield made


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


def left_over(disk: OpenDirectory) -> list[str]:
    return os.listdir(os.path.join(disk.place, "tmp"))


@pytest.mark.parametrize("restarted", [False, True])
def test_who_made_an_object_and_did_not_hear_so_is_told_so_all_the_same(
    site: StoreSite, store: RemoteStore, network: Network, disk: OpenDirectory, restarted: bool
) -> None:
    network.between = site.restart if restarted else network.between
    network.faults = ["answer"]
    assert store.put_if_absent("images/one", b"mine") is True
    assert store.put_if_absent("images/one", b"mine") is False
    network.faults = ["answer"]
    assert store.put_if_absent("images/one", b"another's") is False
    assert store.get("images/one") == b"mine"
    assert left_over(disk) == []


def test_what_was_lost_on_the_way_is_said_again(store: RemoteStore, network: Network) -> None:
    network.faults = ["lost", "lost"]
    assert store.put_if_absent("images/one", b"mine") is True
    network.faults = ["lost"]
    assert store.get("images/one") == b"mine"
    network.faults = ["lost"]
    store.delete("images/one")
    assert store.size("images/one") is None


def test_a_repetition_after_another_took_the_key_is_no_victory(
    site: StoreSite, store: RemoteStore, network: Network
) -> None:
    with contextlib.closing(site.remote()) as other:

        def taken() -> None:
            # Made and lost again, as a job that is fenced takes its manifest back.
            network.faults = []
            other.delete("images/one")
            assert other.put_if_absent("images/one", b"another's") is True

        network.between = taken
        network.faults = ["answer"]
        # It was made, and is told of as it was made; that it is gone is another's doing.
        assert store.put_if_absent("images/one", b"mine") is True
        assert store.get("images/one") == b"another's"


def put(site: StoreSite, seq: int, body: bytes, **more: Any) -> tuple[int, dict[str, Any]]:
    asked = {"key": "images/one", "writer": WRITER, "seq": seq, **more}
    status, said = site.ask("PUT", "/object", asked, body)
    return status, json.loads(said)


def test_a_change_that_comes_after_a_later_one_is_refused(site: StoreSite) -> None:
    assert put(site, 1, b"first")[0] == 200
    gone = {"key": "images/one", "writer": WRITER, "seq": 3}
    assert site.ask("DELETE", "/object", gone) == (204, b"")
    status, said = put(site, 2, b"late", absent=1)
    assert (status, said["code"]) == (409, "wrong-state")
    assert site.ask("GET", "/size", {"key": "images/one"}) == (200, b'{"size": null}')
    # What was made is told again, and not made again.
    assert put(site, 4, b"second") == (200, {"made": True})
    assert site.ask("DELETE", "/object", {**gone, "writer": "1" * 32}) == (204, b"")
    assert put(site, 4, b"second") == (200, {"made": True})
    assert site.ask("GET", "/size", {"key": "images/one"}) == (200, b'{"size": null}')


def test_only_who_says_it_again_may_own_what_is_there(site: StoreSite) -> None:
    assert put(site, 1, b"same", absent=1) == (200, {"made": True})
    other = {"writer": "1" * 32, "absent": 1}
    assert put(site, 1, b"same", **other) == (200, {"made": False})
    assert put(site, 2, b"same", **other, again=1) == (200, {"made": True})
    assert put(site, 3, b"sama", **other, again=1) == (200, {"made": False})
    assert put(site, 4, b"longer", **other, again=1) == (200, {"made": False})


def test_what_failed_after_it_was_done_is_not_done_again(
    store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StagedObject.publish_if_absent
    failures = [OSError(errno.EIO, "input/output error")]

    def publish(staged: StagedObject, key: str) -> bool:
        made = real(staged, key)
        if failures:
            raise failures.pop()
        return made

    monkeypatch.setattr(StagedObject, "publish_if_absent", publish)
    assert store.put_if_absent("images/one", b"mine") is True


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "absent", "delete", "get", "size"]),
        st.sampled_from(["a", "b", "c/d"]),
        st.binary(min_size=1, max_size=8),
        st.lists(st.sampled_from(["", "lost", "answer"]), max_size=3),
        st.booleans(),
    ),
    max_size=12,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(OPERATIONS)
def test_whatever_is_lost_the_store_is_as_if_nothing_was(
    site: StoreSite, disk: OpenDirectory, network: Network, operations: list[Any]
) -> None:
    for key in ("a", "b", "c/d"):
        disk.delete(key)
    known: dict[str, bytes] = {}
    with contextlib.closing(site.remote()) as store:
        for number, (verb, key, data, faults, restarts) in enumerate(operations):
            # As sealed objects are: no two the same.
            unique = number.to_bytes(2, "little") + data
            network.faults = list(faults)
            network.between = site.restart if restarts else lambda: None
            if verb == "put":
                store.put(key, unique)
                known[key] = unique
            elif verb == "absent":
                assert store.put_if_absent(key, unique) is (key not in known)
                known.setdefault(key, unique)
            elif verb == "delete":
                store.delete(key)
                known.pop(key, None)
            elif verb == "size":
                found = store.size(key)
                assert found == (len(known[key]) if key in known else None)
            elif key in known:
                assert store.get(key) == known[key]
            else:
                with pytest.raises(FileNotFoundError):
                    store.get(key)
        network.faults = []
        assert sorted(one for page in store.list("") for one in page) == sorted(
            (key, len(data)) for key, data in known.items()
        )


def test_a_media_server_that_is_away_is_waited_for_and_then_told_of(
    site: StoreSite, store: RemoteStore
) -> None:
    store.put("images/one", b"x")
    port = site.port
    site.stop()
    try:
        with contextlib.closing(site.remote(deadline_s=0.5)) as impatient:
            with pytest.raises(OSError, match=r"images/one.*can't be reached") as caught:
                impatient.get("images/one")
            assert caught.value.errno == errno.EHOSTUNREACH
            with pytest.raises(Unreachable) as told:
                open_pool_on(impatient, key=KEY, cache_dir=None)
            assert "holdfast media run" in (told.value.hint or "")
        reading: list[bytes] = []
        thread = threading.Thread(target=lambda: reading.append(store.get("images/one")))
        thread.start()
    finally:
        site.start(port)
    thread.join(30)
    assert reading == [b"x"]


def test_a_media_server_that_does_not_want_this_master_says_so(site: StoreSite) -> None:
    with contextlib.closing(site.remote(pool="cd" * 16)) as store:
        with pytest.raises(OSError, match="there is no pool cdcd"):
            store.get("images/one")
        with pytest.raises(OSError, match="there is no pool cdcd"):
            store.put("images/one", b"x" * (1 << 20))


def test_a_disk_that_fills_up_is_told_as_such_and_keeps_nothing(
    store: RemoteStore, disk: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = StagedObject.write, 0

    def write(staged: StagedObject, data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > 3_000_000:
            raise OSError(errno.ENOSPC, "no space left on device")
        real(staged, data)

    monkeypatch.setattr(StagedObject, "write", write)
    with pytest.raises(OSError, match=r"packs/aa/one.*no space left") as caught:
        store.put("packs/aa/one", bytes(20_000_000))
    assert caught.value.errno == errno.ENOSPC
    assert store.size("packs/aa/one") is None
    assert left_over(disk) == []


def test_a_disk_that_is_gone_is_not_an_empty_one(store: RemoteStore, disk: OpenDirectory) -> None:
    store.put("images/one", b"x")
    shutil.rmtree(disk.place)
    for asked in (
        lambda: store.get("images/one"),
        lambda: store.get_range("images/one", 0, 1),
        lambda: store.size("images/one"),
        lambda: list(store.list("images/")),
        lambda: store.put("images/two", b"x"),
        lambda: store.put_if_absent("images/two", b"x"),
    ):
        with pytest.raises(OSError, match="images/") as caught:
            asked()
        assert not isinstance(caught.value, FileNotFoundError)
    assert not os.path.exists(disk.place)


def test_an_object_is_read_in_many_parts_of_one_version(
    store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (remote_module, store_routes):
        monkeypatch.setattr(module, "READ_BYTES", 1000)
    monkeypatch.setattr(remote_module, "_CHANGED_TRIED", 1000)
    versions = {bytes([number]) * (5000 + number) for number in range(4)}
    store.put("jobs/one", min(versions))
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for version in versions:
                store.put("jobs/one", version)
                # Whoever reads gets through now and then.
                done.wait(0.1)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(30):
            assert store.get("jobs/one") in versions
            assert len(set(store.get_range("jobs/one", 100, 4500))) == 1
    finally:
        done.set()
        thread.join(30)


def test_a_real_pool_is_backed_up_to_and_restored_byte_for_byte(
    tmp_path: Path, network: Network
) -> None:
    tree, place = tmp_path / "tree", tmp_path / "pool"
    make_tree(tree)
    create_pool(str(place), secret=KEY, clock=SystemClock())
    disk = OpenDirectory(str(place))
    order = BackupOrder(client=ClientName("web1"), paths=(os.fsencode(tree),))
    with store_site(disk) as site, contextlib.closing(site.remote()) as store:
        network.between = site.restart
        network.faults = ["", "lost", "", "answer"] * 3
        pool = open_pool_on(store, key=KEY, cache_dir=tmp_path / "cache")
        first = run_backup(pool, order, SystemClock())
        change_tree(tree, seed=1)
        network.faults = ["", "answer", ""] * 3
        second = run_backup(pool, order, SystemClock())
        assert second.parent == first.id
        run_restore(pool, RestoreOrder(ImageId(second.id), (), os.fsencode(tmp_path / "far")))
        pool.expire(first.id)
        run_garbage_collection(pool, SystemClock(), dry_run=False)
        assert run_check(pool, read_data=True).problems_total == 0
    disk.close()
    # As its owner has it: the same pool, and nothing on its way any more.
    near = open_pool(str(place), secret=KEY, cache_dir=None)
    assert near.image_ids() == [second.id]
    assert run_check(near, read_data=True).problems_total == 0
    run_restore(near, RestoreOrder(ImageId(second.id), (), os.fsencode(tmp_path / "near")))
    for back in ("far", "near"):
        assert_same_tree(tree, os.fsencode(tmp_path / back) + os.fsencode(tree))
    assert os.listdir(place / "tmp") == []


def test_a_place_without_a_pool_is_told_as_such(store: RemoteStore) -> None:
    with pytest.raises(NotAPool, match=POOL):
        open_pool_on(store, key=KEY, cache_dir=None)
