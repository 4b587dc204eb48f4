"""The agent's link: what is tried again, what is raised, and how it is stopped."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import (
    Cancelled,
    ChunkMissing,
    Fenced,
    Forbidden,
    InputOutput,
    IntegrityError,
    InternalError,
    NotAuthenticated,
    Unreachable,
)
from holdfast.base.ids import ClientName
from holdfast.engine import RemotePool
from holdfast.movers.backup_run import BackupOrder
from holdfast.movers.transfer import client as client_module
from holdfast.movers.transfer import connection
from holdfast.movers.transfer.calls import is_small
from holdfast.movers.transfer.client import TransferLink
from holdfast.movers.transfer.opened import read_opened
from holdfast.movers.transfer.paths import Path
from holdfast.movers.transfer.ports import TransferLimits
from holdfast.movers.transfer.rate import SLOWEST_BYTES_PER_S, RateLimit
from holdfast.movers.transfer.remote_runs import TransferTarget, remote_backup
from tests.kit.fault_relay import FaultRelay
from tests.kit.memory_pool import MemoryPool, body_of, name_of, wanted_of
from tests.kit.served import until
from tests.kit.transfer_site import TransferSite, transfer_site

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = b"one" * 100
LARGE = bytes(range(256)) * 4096


@pytest.fixture
def pool() -> MemoryPool:
    return MemoryPool()


@pytest.fixture
def site(tmp_path: FilePath, pool: MemoryPool) -> Iterator[TransferSite]:
    with transfer_site(tmp_path, pool, TransferLimits(sign_of_life_s=0.1)) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_PAUSE_S", 0.01)
    # A server that stops in this process may forget a connection instead of closing it.
    monkeypatch.setattr(connection, "STALL_S", 2.0)


class Linked:
    """Links that are closed at the end."""

    def __init__(self, site: TransferSite) -> None:
        self.site = site
        self.made: list[TransferLink] = []

    def __call__(self, *paths: Path, **more: Any) -> TransferLink:
        given = {"token": self.site.token, "deadline_s": 20.0, **more}
        link = TransferLink(
            paths=paths or (Path("127.0.0.1", self.site.port),),
            context=self.site.machines.client("alpha"),
            **given,
        )
        self.made.append(link)
        return link


@pytest.fixture
def linked(site: TransferSite) -> Iterator[Linked]:
    made = Linked(site)
    yield made
    for link in made.made:
        link.close()


def test_a_backup_goes_over_it_and_a_restore_comes_back(site: TransferSite, linked: Linked) -> None:
    link = linked()
    opened = link.open_upload(read_all=False)
    assert (opened.terms, opened.parent) == (b"the terms", None)
    assert link.missing(name_of(ONE) + name_of(LARGE)) == b"\3"
    link.send(body_of(ONE))
    link.send(body_of(LARGE))
    manifest = link.commit(name_of(ONE) + name_of(LARGE))
    image = manifest[:32].decode()
    reading = linked(
        token=lambda: site.token(verbs=frozenset({"restore"}), images=frozenset({image}))
    )
    assert reading.terms() == b"the terms"
    assert reading.manifest(image) == manifest
    assert reading.read(wanted_of(LARGE, ONE)) == body_of(LARGE, ONE)


def test_many_threads_use_it_at_once(linked: Linked, pool: MemoryPool) -> None:
    link = linked()
    link.open_upload(read_all=False)
    chunks = [bytes([one]) * (300_000 + one) for one in range(40)]

    def send(mine: list[bytes]) -> None:
        for one in mine:
            assert link.missing(name_of(one)) == b"\1"
            link.send(body_of(one))

    threads = [threading.Thread(target=send, args=(chunks[at::8],)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    link.commit(b"".join(name_of(one) for one in chunks))
    assert len(pool.chunks) == 40


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (IntegrityError("it is damaged"), IntegrityError),
        (Fenced("it is another's"), Fenced),
        (ChunkMissing("it is gone"), ChunkMissing),
    ],
)
def test_what_will_not_go_well_is_raised_at_once(
    linked: Linked, pool: MemoryPool, failure: Exception, raised: type[Exception]
) -> None:
    link = linked()
    link.open_upload(read_all=False)
    pool.failures.append(failure)
    with pytest.raises(raised, match="it is"):
        link.send(body_of(ONE))
    assert pool.calls.count("take") == 1


def test_a_commit_is_said_while_the_last_body_is_on_its_way(
    site: TransferSite, linked: Linked, pool: MemoryPool
) -> None:
    link = linked(bodies_ahead=1)
    assert link.open_upload(read_all=False).awaits
    pool.gate.clear()
    link.send(body_of(ONE))
    committing = threading.Thread(target=link.commit, args=(name_of(ONE),))
    committing.start()
    until(lambda: site.server.uploads.commits_waiting == 1, "a commit that waits")
    assert site.images == []
    pool.gate.set()
    committing.join(30)
    assert len(site.images) == 1


def test_a_commit_before_whose_end_a_body_is_refused_raises_that(
    site: TransferSite, linked: Linked, pool: MemoryPool
) -> None:
    link = linked(bodies_ahead=1)
    link.open_upload(read_all=False)
    pool.gate.clear()
    pool.failures.append(IntegrityError("it is damaged"))
    link.send(body_of(ONE))
    raised: list[BaseException] = []

    def commit() -> None:
        try:
            link.commit(name_of(ONE))
        except IntegrityError as error:
            raised.append(error)

    committing = threading.Thread(target=commit)
    committing.start()
    until(lambda: site.server.uploads.commits_waiting == 1, "a commit that waits")
    pool.gate.set()
    committing.join(30)
    assert [str(one) for one in raised] == ["it is damaged"]
    link.abandon()
    until(lambda: site.server.uploads.commits_waiting == 0, "a commit that waits")
    assert site.images == []


def test_of_a_media_server_that_does_not_wait_the_last_body_is_awaited(
    site: TransferSite, linked: Linked, pool: MemoryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        client_module, "read_opened", lambda answer: replace(read_opened(answer), awaits=False)
    )
    link = linked(bodies_ahead=1)
    link.open_upload(read_all=False)
    pool.gate.clear()
    link.send(body_of(ONE))
    threading.Timer(0.2, pool.gate.set).start()
    assert link.commit(name_of(ONE))
    assert pool.calls.index("take") < pool.calls.index("commit")


def test_terms_and_manifest_are_asked_for_at_once(
    site: TransferSite, linked: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = linked()
    link.open_upload(read_all=False)
    link.send(body_of(ONE))
    manifest = link.commit(name_of(ONE))
    image = manifest[:32].decode()
    both = threading.Barrier(2, timeout=10)
    exchange = connection.Connection.exchange

    def together(self: connection.Connection, *given: Any) -> connection.Response:
        both.wait()
        return exchange(self, *given)

    monkeypatch.setattr(connection.Connection, "exchange", together)
    reading = linked(
        token=lambda: site.token(verbs=frozenset({"restore"}), images=frozenset({image}))
    )
    assert reading.terms_and_manifest(image) == (b"the terms", manifest)


def test_what_may_go_well_later_is_tried_again(linked: Linked, pool: MemoryPool) -> None:
    link = linked()
    link.open_upload(read_all=False)
    pool.failures += [InputOutput("a hiccup") for _ in range(5)]
    link.send(body_of(ONE))
    assert pool.calls.count("take") == 6


def test_a_defect_is_tried_again_a_few_times_only(linked: Linked, pool: MemoryPool) -> None:
    link = linked()
    link.open_upload(read_all=False)
    pool.failures += [RuntimeError("a defect") for _ in range(9)]
    with pytest.raises(InternalError, match="the media server failed"):
        link.send(body_of(ONE))
    assert pool.calls.count("take") == 3


def test_what_keeps_failing_is_raised_when_the_deadline_is_over(
    linked: Linked, pool: MemoryPool
) -> None:
    link = linked(deadline_s=0.5)
    link.open_upload(read_all=False)
    pool.failures += [InputOutput("a hiccup") for _ in range(999)]
    with pytest.raises(InputOutput, match="a hiccup"):
        link.send(body_of(ONE))


def test_a_refusal_is_raised_as_what_it_is(site: TransferSite, linked: Linked) -> None:
    with pytest.raises(Forbidden):
        linked().manifest("ab" * 16)
    with pytest.raises(NotAuthenticated):
        linked(token=lambda: "x.y").terms()
    with pytest.raises(Forbidden, match="came with it"):
        linked(token=lambda: site.token("beta")).terms()


def test_a_token_that_can_not_be_had_for_a_moment_is_asked_for_again(
    site: TransferSite, linked: Linked
) -> None:
    away = [Unreachable("the master is away")] * 3

    def token() -> str:
        if away:
            raise away.pop()
        return site.token()

    assert linked(token=token).terms() == b"the terms"


def test_a_job_that_was_given_to_another_is_told_at_once(linked: Linked) -> None:
    def token() -> str:
        raise Fenced("job 1 is another's")

    with pytest.raises(Fenced):
        linked(token=token).terms()


def test_a_server_that_is_not_the_one_wanted_is_told_nothing(linked: Linked) -> None:
    seen: list[bytes] = []

    def check(der: bytes) -> None:
        seen.append(der)
        raise NotAuthenticated("this is no media server")

    with pytest.raises(NotAuthenticated, match="no media server"):
        linked(check_peer=check, deadline_s=0.3).terms()
    assert seen[0]


def test_a_server_that_comes_back_is_found_again(
    site: TransferSite, linked: Linked, pool: MemoryPool
) -> None:
    link = linked()
    assert link.terms() == b"the terms"
    port = site.port
    site.stop()
    site.start(port=port)
    assert link.terms() == b"the terms"


def test_who_waits_for_an_upload_hears_that_it_is_worked_on(
    linked: Linked, pool: MemoryPool
) -> None:
    link = linked()
    pool.door.clear()
    heard: list[str] = []

    def at_work() -> None:
        heard.append(threading.current_thread().name)
        if len(heard) == 3:
            pool.door.set()

    assert link.open_upload(read_all=False, at_work=at_work).terms == b"the terms"
    assert len(heard) >= 3
    assert set(heard) == {threading.current_thread().name}


def test_who_is_told_to_stop_while_an_upload_is_opened_stops(
    linked: Linked, pool: MemoryPool
) -> None:
    link = linked()
    pool.door.clear()

    def told_to_stop() -> None:
        raise Cancelled("told to stop")

    try:
        with pytest.raises(Cancelled, match="told to stop"):
            link.open_upload(read_all=False, at_work=told_to_stop)
    finally:
        link.close()
        pool.door.set()


def test_a_backup_that_waits_to_begin_hears_that_it_is_to_stop(
    site: TransferSite, pool: MemoryPool
) -> None:
    reported: list[object] = []

    def report(counters: object) -> None:
        reported.append(counters)
        raise Cancelled("told to stop")

    target = TransferTarget(
        urls=(f"https://127.0.0.1:{site.port}",),
        context=site.machines.client("alpha"),
        token=site.token,
        remote_pool=RemotePool,
    )
    pool.door.clear()
    try:
        with pytest.raises(Cancelled, match="told to stop"):
            remote_backup(target, BackupOrder(ClientName("alpha"), (b"/",)), SystemClock(), report)
    finally:
        pool.door.set()
    # Nothing is counted before there is an upload.
    assert reported == [None]


def test_closing_wakes_whoever_waits(
    linked: Linked, pool: MemoryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ABANDON_S", 30.0)
    link = linked()
    link.open_upload(read_all=False)
    pool.gate.clear()
    raised: list[BaseException] = []

    def send() -> None:
        try:
            link.send(body_of(ONE))
        except Cancelled as error:
            raised.append(error)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    while "take" not in pool.calls:
        pass
    began_s = time.monotonic()
    link.cancel()
    for thread in threads:
        thread.join(30)
    assert len(raised) == 4
    assert time.monotonic() - began_s < 10
    with pytest.raises(Cancelled):
        link.missing(name_of(ONE))
    pool.gate.set()
    link.abandon()
    assert pool.abandoned() == [True]
    link.close()


def test_a_rate_holds_for_what_is_sent(linked: Linked) -> None:
    link = linked(rate=RateLimit(4 << 20))
    link.open_upload(read_all=False)
    began_s = time.monotonic()
    link.send(body_of(LARGE))
    link.send(body_of(LARGE[::-1]))
    link.send(body_of(LARGE[1:] + b"."))
    assert time.monotonic() - began_s > 0.5


def test_at_a_low_rate_one_body_after_the_other_is_sent(linked: Linked) -> None:
    link = linked(rate=RateLimit(SLOWEST_BYTES_PER_S * 1.5))
    link.open_upload(read_all=False)
    most: list[int] = []
    link.rate.take = (  # type: ignore[method-assign]
        lambda *_: most.append(sum(state.at_work for state in link.states))
    )
    threads = [threading.Thread(target=link.send, args=(body_of(LARGE),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert max(most) == 1


def test_a_question_that_is_stuck_on_one_path_is_answered_over_another(
    site: TransferSite, linked: Linked
) -> None:
    relay = FaultRelay(site.port, 1, most=0)
    link = linked(Path("127.0.0.1", relay.port), Path("127.0.0.1", site.port))
    link.open_upload(read_all=False)
    for number in range(20):
        if number == 5:
            relay.hold()
        assert link.missing(number.to_bytes(32, "little")) == b"\1"
    relay.close()


def test_a_path_that_is_dead_leaves_its_work_to_the_others(
    site: TransferSite, linked: Linked, pool: MemoryPool
) -> None:
    relays = [FaultRelay(site.port, seed, most=0) for seed in range(2)]
    link = linked(*(Path("127.0.0.1", relay.port) for relay in relays), Path("127.0.0.1", 1))
    link.open_upload(read_all=False)
    chunks = [one.to_bytes(4, "little") * 100_000 for one in range(24)]
    for number, one in enumerate(chunks):
        link.send(body_of(one))
        if number == 12:
            relays[0].cut_off(3600)
    link.commit(b"".join(name_of(one) for one in chunks))
    first, second, nowhere = link.states
    assert min(first.moved_bytes, second.moved_bytes) > 400_000
    assert (nowhere.moved_bytes, nowhere.failures > 0) == (0, True)
    for relay in relays:
        relay.close()


def test_a_path_that_comes_back_is_used_again(
    site: TransferSite, linked: Linked, pool: MemoryPool
) -> None:
    relays = [FaultRelay(site.port, seed, most=0) for seed in range(2)]
    link = linked(*(Path("127.0.0.1", relay.port) for relay in relays))
    link.open_upload(read_all=False)
    relays[0].cut_off(0.3)
    until_s = time.monotonic() + 20
    number = 0
    while not link.states[0].moved_bytes and time.monotonic() < until_s:
        number += 1
        link.send(body_of(number.to_bytes(4, "little") * 10_000))
    assert link.states[0].moved_bytes
    for relay in relays:
        relay.close()


def test_what_is_small_to_read_is_told_by_its_lengths() -> None:
    assert is_small(wanted_of(ONE))
    assert is_small(wanted_of(*[ONE] * 16))
    assert not is_small(wanted_of(*[ONE] * 17))
    assert not is_small(wanted_of(LARGE))
