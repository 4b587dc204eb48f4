"""A storage unit on a media server's disk is made once, whatever becomes of the answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import AlreadyExists, PoolExists, Unreachable
from holdfast.base.ids import ClientName
from holdfast.control.storage import StorageBook
from holdfast.engine import Pool, PoolConfig
from holdfast.site import own_pool_orders, storage_units
from holdfast.site.own_pools import OwnPools
from holdfast.vault import PoolKey
from holdfast.wire.identity import MachineRole

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.control.database import Database

SITE_KEY = b"s" * 32
MEDIA = ClientName("media1")


class Network:
    """A media server whose answers, or the orders to it, are lost as a test says."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.lost: list[str] = []
        self.start()

    def start(self) -> None:
        """A media server that was started anew knows no key."""
        self.pools = OwnPools(self.home, SystemClock())

    def ask(self, _: ClientName, order: dict[str, Any], __: float) -> dict[str, Any]:
        lost = self.lost.pop(0) if self.lost else ""
        if lost == "order":
            raise Unreachable("machine 'media1' gave no answer")
        said = own_pool_orders.answers(self.pools)[order["ask"]](order)
        if lost == "answer":
            raise Unreachable("machine 'media1' gave no answer")
        return said


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path / "media1")


@pytest.fixture
def master(database: Database, network: Network, tmp_path: Path) -> Any:
    own = Pool.create(str(tmp_path / "own"), SITE_KEY, PoolConfig(), 0)
    book = StorageBook(database)
    machines = SimpleNamespace(
        machine=lambda name: SimpleNamespace(name=name, role=MachineRole.MEDIA)
    )
    return SimpleNamespace(
        units=book,
        unit_slots=lambda: {one.name: one.slots for one in book.units()},
        machines=machines,
        site=SimpleNamespace(pool=own, pool_key=lambda: SITE_KEY, home=tmp_path),
        clock=SystemClock(),
        news=lambda: None,
        spoken_to=SimpleNamespace(sessions=network, pool_made=lambda *_: None),
    )


@pytest.mark.parametrize("lost", [["answer"], ["order"], ["order", "answer", "answer"]])
@pytest.mark.parametrize("starts", [False, True])
def test_said_again_after_a_lost_answer_it_is_completed(
    master: Any, network: Network, tmp_path: Path, lost: list[str], starts: bool
) -> None:
    path = str(tmp_path / "disk")
    network.lost = list(lost)
    for _ in lost:
        with pytest.raises(Unreachable) as told:
            storage_units.create_owned(master, "branch", MEDIA, path, 4)
        assert "say the same again" in str(told.value.hint)
        assert master.units.units() == []
        if starts:
            network.start()
    made = storage_units.create_owned(master, "branch", MEDIA, path, 4)
    assert master.units.units() == [made]
    key = master.units.key(made.pool, SITE_KEY)
    assert Pool.open(path, key).id.hex() == made.pool
    assert network.pools.get(made.pool).pool.id.hex() == made.pool
    with pytest.raises(AlreadyExists):
        storage_units.create_owned(master, "branch", MEDIA, path, 4)


def test_another_name_takes_what_was_begun_as_well(
    master: Any, network: Network, tmp_path: Path
) -> None:
    network.lost = ["answer"]
    with pytest.raises(Unreachable):
        storage_units.create_owned(master, "brnach", MEDIA, str(tmp_path / "disk"), 4)
    made = storage_units.create_owned(master, "branch", MEDIA, str(tmp_path / "disk"), 4)
    assert [one.name for one in master.units.units()] == ["branch"]
    assert made.place == str(tmp_path / "disk")


def test_a_pool_that_was_there_before_is_not_taken(
    master: Any, network: Network, tmp_path: Path
) -> None:
    path = str(tmp_path / "disk")
    network.pools.make(path, PoolKey(b"x" * 32), None, None)
    for _ in range(2):
        with pytest.raises(PoolExists):
            storage_units.create_owned(master, "branch", MEDIA, path, 4)
    assert master.units.units() == []
