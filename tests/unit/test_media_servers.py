"""Which media server takes the data of a job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.base.errors import Forbidden, Invalid
from holdfast.base.ids import ClientName
from holdfast.site.machines.media import MediaServers
from holdfast.wire.identity import MachineRole

POOL, OWNED = "0" * 32, "1" * 32


class Site:
    """A served site, as far as media servers are concerned."""

    def __init__(self) -> None:
        self.heartbeat_s = 5.0
        self.open: dict[str, Any] = {}
        self.reached: list[Any] = []
        self.answers: dict[str, Any] = {}
        self.sessions = SimpleNamespace(get=self.open.get, all=lambda: list(self.open.values()))
        owned = SimpleNamespace(name="branch", pool=OWNED, server=ClientName("m3"))
        self.master = SimpleNamespace(
            news=lambda: None,
            site=SimpleNamespace(
                pool_id=POOL,
                pool_key=lambda: b"k" * 32,
                pools=SimpleNamespace(is_near=lambda pool: pool == POOL, forget=lambda _: None),
            ),
            units=SimpleNamespace(
                units=lambda: [owned],
                urls=lambda _: (),
                reached=lambda *said: self.reached.append(said),
                key=lambda *_: b"K" * 32,
            ),
        )
        self.servers = MediaServers(
            cast("Any", self),
            may_commit=lambda *_: True,
            committed=lambda *_: None,
            now_s=lambda: 0.0,
            token_key=b"t" * 32,
        )

    def refused_serials(self) -> frozenset[str]:
        return frozenset()

    def come(self, name: str, role: MachineRole = MachineRole.MEDIA, **said: Any) -> dict[str, Any]:
        load = said.pop("load", {})
        session = SimpleNamespace(peer=SimpleNamespace(name=name, role=role), load=load)
        self.open[name] = session
        order = {"urls": [f"https://{name}:1"], "pool": POOL, **said}
        found: dict[str, Any] = self.answers["serve-data"](session, order)
        return found

    def chosen(self, job: int, pool: str = POOL) -> str | None:
        found = self.servers.choose((job, 1), pool)
        return None if found is None else found.name


@pytest.fixture
def site() -> Site:
    return Site()


def test_jobs_are_spread_and_stay_where_they_are(site: Site) -> None:
    site.come("m1")
    site.come("m2")
    assert [site.chosen(job) for job in (1, 2, 3, 4)] == ["m1", "m2", "m1", "m2"]
    assert [site.chosen(job) for job in (1, 2)] == ["m1", "m2"]
    site.servers.ended((1, 1))
    assert site.chosen(5) == "m1"


@pytest.mark.parametrize("part", ["cpu", "memory", "disk", "network"])
def test_whoever_is_busy_otherwise_is_given_less(site: Site, part: str) -> None:
    site.come("m1", load={part: 0.9, "jobs": 0.0})
    site.come("m2", load={part: 0.1, "jobs": 9.0})
    assert site.chosen(1) == "m2"


def test_a_server_takes_no_more_than_it_says(site: Site) -> None:
    site.come("m1", jobs=1)
    site.come("m2", jobs=3)
    taken = [site.chosen(job) for job in range(1, 5)]
    assert sorted(map(str, taken)) == ["m1", "m2", "m2", "m2"]
    # More is the master's own; what has its place keeps it.
    assert site.chosen(5) is None
    assert [site.chosen(job) for job in range(1, 5)] == taken


def test_what_one_alone_has_goes_there_even_so(site: Site) -> None:
    site.come("m1")
    answer = site.come("m3", pool=None, own=[OWNED], open=[OWNED], jobs=1)
    assert set(answer["keys"]) == {OWNED}
    assert site.servers.pools == {POOL, OWNED}
    assert [site.chosen(job, OWNED) for job in (1, 2)] == ["m3", "m3"]
    assert site.chosen(3) == "m1"


def test_where_a_new_pool_is_reached_is_noted_at_once(site: Site) -> None:
    site.come("m3", pool=None)
    site.reached.clear()
    site.servers.made(ClientName("m3"), OWNED)
    assert site.reached == [("m3", ("https://m3:1",))]
    assert site.chosen(1, OWNED) == "m3"


def test_a_pool_is_its_owners_alone(site: Site) -> None:
    answer = site.come("m1", own=[OWNED], open=[OWNED])
    assert answer["keys"] == {}
    assert site.chosen(1, OWNED) is None


def test_whoever_left_is_given_nothing(site: Site) -> None:
    site.come("m1")
    del site.open["m1"]
    assert site.chosen(1) is None
    assert site.servers.pools == frozenset()


def test_only_media_servers_of_this_pool_serve_it(site: Site) -> None:
    with pytest.raises(Forbidden):
        site.come("web1", MachineRole.AGENT)
    with pytest.raises(Invalid, match="has pool"):
        site.come("m1", pool="2" * 32)
    for urls in ([], ["http://m1:1"], ["https://m1:1"] * 65):
        with pytest.raises(Invalid):
            site.come("m1", urls=urls)
