"""Machines of a site move data between them, and nobody else gets any."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import NotAuthenticated, Unreachable
from holdfast.base.ids import ClientName, ImageId, SourceName
from holdfast.engine import Pool, PoolConfig
from holdfast.movers.backup_run import BackupOrder
from holdfast.movers.remote_agent import Transfer
from holdfast.movers.restore_run import RestoreOrder
from holdfast.movers.transfer import remote_runs
from holdfast.movers.transfer.machine import TOKEN_REUSED_S, FarMovers, TokenKeeper
from holdfast.wire.identity import MachineRole
from holdfast.wire.messages import BackupWork, WorkOffer
from tests.kit.real_machines import RealMachines
from tests.kit.transfer_site import TransferSite, transfer_site
from tests.kit.trees import assert_same_tree, change_tree, make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def machines() -> RealMachines:
    return RealMachines()


@pytest.fixture
def site(tmp_path: Path, machines: Any) -> Iterator[TransferSite]:
    pool = Pool.create(str(tmp_path / "pool"), bytes(range(32)), PoolConfig(), 0)
    with transfer_site(tmp_path, pool, machines=machines, pool_id=pool.id.hex()) as made:
        yield made


def transfer(site: TransferSite, machines: RealMachines, **grant: Any) -> Transfer:
    return Transfer(
        offer=WorkOffer(1, 1, 60.0, BackupWork("alpha", "alpha:/data", ("/data",))),
        urls=(f"https://127.0.0.1:{site.port}",),
        pool=site.pool_id,
        token=lambda: site.token("alpha", **grant),
        identity=machines.identity(MachineRole.AGENT, "alpha"),
    )


def test_a_machine_backs_up_and_restores(
    site: TransferSite, machines: RealMachines, tmp_path: Path
) -> None:
    tree, back = tmp_path / "tree", tmp_path / "back"
    make_tree(tree)
    movers = FarMovers(tmp_path / "home" / "remembered")
    order = BackupOrder(ClientName("alpha"), (os.fsencode(tree),), name=SourceName("alpha:/data"))
    first = movers(transfer(site, machines))[0](order, lambda _: None)
    change_tree(tree)
    again = transfer(site, machines, job=2, parent=first.id)
    second = movers(again)[0](order, lambda _: None)
    assert second.parent == first.id
    # Of one source there is one file, whatever else is backed up.
    assert len(list((tmp_path / "home" / "remembered").glob("*.trees"))) == 1
    reading = transfer(
        site, machines, job=3, verbs=frozenset({"restore"}), images=frozenset({second.id})
    )
    movers(reading)[1](RestoreOrder(ImageId(second.id), (), os.fsencode(back)), lambda _: None)
    assert_same_tree(tree, os.fsencode(back) + os.fsencode(tree))


def test_what_is_no_media_server_is_given_nothing(
    tmp_path: Path, machines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An agent of the same site, which has a certificate of the same authority.
    machines.role = MachineRole.AGENT
    link = remote_runs.TransferTarget.link

    def impatient(self: remote_runs.TransferTarget) -> Any:
        made = link(self)
        made.deadline_s = 0.3
        return made

    monkeypatch.setattr(remote_runs.TransferTarget, "link", impatient)
    pool = Pool.create(str(tmp_path / "pool"), bytes(range(32)), PoolConfig(), 0)
    with transfer_site(tmp_path, pool, machines=machines, pool_id=pool.id.hex()) as site:
        back_up = FarMovers()(transfer(site, machines)).back_up
        order = BackupOrder(ClientName("alpha"), (os.fsencode(tmp_path),))
        with pytest.raises(NotAuthenticated, match="the agent 'server' of site 5e"):
            back_up(order, lambda _: None)
        assert site.refusals == []


def test_a_token_is_asked_for_once_a_while_and_again_if_that_failed() -> None:
    now_s = 0.0
    answers: list[str | Exception] = ["second", Unreachable("the master is away"), "first"]

    def fresh() -> str:
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    keeper = TokenKeeper(fresh, lambda: now_s)
    assert [keeper(), keeper()] == ["first", "first"]
    now_s += TOKEN_REUSED_S - 1
    assert keeper() == "first"
    now_s += 2
    with pytest.raises(Unreachable):
        keeper()
    assert keeper() == "second"
