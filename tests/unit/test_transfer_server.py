"""The media server's routes: what comes twice counts once, and an upload is its owner's alone."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import InputOutput
from holdfast.movers.transfer import link_rates
from holdfast.movers.transfer.ports import TransferLimits
from tests.kit.memory_pool import MemoryPool, body_of, name_of, wanted_of
from tests.kit.served import until
from tests.kit.transfer_site import TransferSite, transfer_site

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE, TWO = b"one" * 100, b"two" * 5000


@pytest.fixture
def pool() -> MemoryPool:
    return MemoryPool()


@pytest.fixture
def site(tmp_path: Path, pool: MemoryPool) -> Iterator[TransferSite]:
    with transfer_site(tmp_path, pool) as made:
        yield made


@contextmanager
def side_by_side(*calls: Any) -> Iterator[list[Any]]:
    """Run calls in threads; their results are there at the end."""
    results: list[Any] = [None] * len(calls)

    def run(at: int) -> None:
        results[at] = calls[at]()

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    yield results
    for thread in threads:
        thread.join(30)


def back_up(site: TransferSite, **changes: Any) -> str:
    """An image of both chunks."""
    alpha, token = site.peer(), site.token(**changes)
    upload = alpha.open(token)
    alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE, TWO), token)
    status, manifest = alpha.ask(
        "POST", f"/uploads/{upload}/commit", name_of(ONE) + name_of(TWO), token
    )
    assert status == 200
    return manifest[:32].decode()


def test_a_backup_goes_in_and_comes_out_again(site: TransferSite, pool: MemoryPool) -> None:
    alpha = site.peer()
    pool.chunks[name_of(ONE)] = ONE
    upload = alpha.open()
    names = name_of(ONE) + name_of(TWO)
    assert alpha.ask("POST", f"/uploads/{upload}/missing", names) == (200, b"\2")
    assert alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(TWO)) == (204, b"")
    status, manifest = alpha.ask("POST", f"/uploads/{upload}/commit", names)
    assert (status, manifest[32:]) == (200, names)
    [(grant, image)] = site.images
    assert (image.source, image.host, grant.job) == ("alpha:/data", "alpha", 1)

    reading = site.token(verbs=frozenset({"restore"}), images=frozenset({image.id}))
    assert alpha.ask("GET", f"/images/{image.id}", token=reading) == (200, manifest)
    assert alpha.ask("GET", "/terms", token=reading) == (200, b"the terms")
    assert alpha.ask("POST", "/read", wanted_of(TWO, ONE), reading) == (200, body_of(TWO, ONE))
    assert site.refusals == []


def test_who_hands_chunks_out_is_told_how_fast_they_go(
    site: TransferSite, pool: MemoryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_rates, "KNOWN_BYTES", 1)
    back_up(site)
    for job in (2, 2, 3):
        token = site.token(job=job, verbs=frozenset({"restore"}), images=frozenset({"ab" * 16}))
        assert site.peer().ask("POST", "/read", wanted_of(ONE), token) == (200, body_of(ONE))
    first, second, other = pool.links
    assert (first, other) == (None, None)
    assert second is not None
    assert second > 0


def test_an_opening_that_comes_twice_opens_one_upload(site: TransferSite, pool: MemoryPool) -> None:
    alpha = site.peer()
    assert alpha.open(attempt="a") == alpha.open(attempt="a")
    assert pool.calls.count("receive") == 1


def test_an_opening_tells_terms_and_the_parent_that_the_token_names(
    site: TransferSite, pool: MemoryPool
) -> None:
    parent = back_up(site, labels={"policy": "nightly"})
    assert pool.images[0].labels == {"policy": "nightly"}

    def said(**changes: Any) -> Any:
        token = site.token(job=2, **changes)
        body = {"read_all": changes.get("job") == 9, "attempt": "b"}
        return json.loads(site.peer().ask("POST", "/uploads", json.dumps(body).encode(), token)[1])

    assert base64.b64decode(said()["terms"]) == b"the terms"
    assert said()["parent"] is None
    assert base64.b64decode(said(parent=parent, fence=2)["parent"]) == pool.manifests[parent]
    assert said(parent="ff" * 16, fence=3)["parent"] is None


def test_a_full_backup_is_given_no_parent(site: TransferSite) -> None:
    parent = back_up(site)
    body = json.dumps({"read_all": True, "attempt": "b"}).encode()
    token = site.token(job=2, parent=parent)
    assert json.loads(site.peer().ask("POST", "/uploads", body, token)[1])["parent"] is None


def test_a_body_that_comes_twice_is_taken_once(site: TransferSite, pool: MemoryPool) -> None:
    alpha = site.peer()
    upload = alpha.open()
    for _ in range(2):
        assert alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE)) == (204, b"")
    assert pool.calls.count("take") == 1


def test_a_body_that_comes_twice_at_once_is_taken_once(
    site: TransferSite, pool: MemoryPool
) -> None:
    alpha = site.peer()
    upload = alpha.open()
    pool.gate.clear()

    def send() -> Any:
        return alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE))

    with side_by_side(send, send) as results:
        pool.gate.set()
    assert results == [(204, b"")] * 2
    assert pool.calls.count("take") == 1


def test_a_body_that_failed_may_come_again(site: TransferSite, pool: MemoryPool) -> None:
    alpha = site.peer()
    upload = alpha.open()
    pool.failures.append(InputOutput("the disk hiccuped"))
    status, said = alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE))
    assert (status, json.loads(said)["code"]) == (503, "io")
    assert alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE)) == (204, b"")
    assert site.refusals == []


def test_a_defect_is_told_as_one_and_nothing_more_of_it(
    site: TransferSite, pool: MemoryPool
) -> None:
    alpha = site.peer()
    upload = alpha.open()
    pool.failures.append(RuntimeError("secret"))
    status, said = alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE))
    assert (status, json.loads(said)["code"]) == (500, "internal")
    assert b"secret" not in said


def test_a_commit_that_comes_again_gives_the_same_manifest(
    site: TransferSite, pool: MemoryPool
) -> None:
    alpha = site.peer()
    upload = alpha.open()
    alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE))
    answers = [alpha.ask("POST", f"/uploads/{upload}/commit", name_of(ONE)) for _ in range(3)]
    assert answers == [answers[0]] * 3
    assert (len(pool.images), len(site.images)) == (1, 1)
    code = alpha.code("POST", f"/uploads/{upload}/commit", name_of(TWO))
    assert (code, len(pool.images)) == ("wrong-state", 1)


def test_a_commit_waits_for_the_bodies_that_it_comes_after(
    site: TransferSite, pool: MemoryPool
) -> None:
    alpha = site.peer()
    upload = alpha.open()
    path = f"/uploads/{upload}/commit?after=2"
    with side_by_side(partial(alpha.ask, "POST", path, name_of(ONE))) as results:
        until(lambda: site.server.uploads.commits_waiting == 1, "a commit that waits")
        # In any order, and one of them twice.
        for seq, data in ((1, TWO), (1, TWO), (0, ONE)):
            assert site.images == []
            asked = alpha.ask("POST", f"/uploads/{upload}/blocks?seq={seq}", body_of(data))
            assert asked == (204, b"")
    assert [status for status, _ in results] == [200]
    assert site.server.uploads.commits_waiting == 0
    assert len(site.images) == 1


def test_a_commit_whose_bodies_never_come_ends_with_its_upload(
    tmp_path: Path, pool: MemoryPool
) -> None:
    with transfer_site(tmp_path, pool, TransferLimits(lease_s=0.5)) as site:
        alpha = site.peer()
        upload = alpha.open()
        path = f"/uploads/{upload}/commit"
        assert alpha.code("POST", f"{path}?after=1", name_of(ONE)) in ("busy", "upload-missing")
        assert alpha.code("POST", f"{path}?after=99999999", name_of(ONE)) in (
            "invalid",
            "upload-missing",
        )
        assert site.images == []


@pytest.mark.parametrize("after", ["x", "-1", "1" * 16, "%20"])
def test_a_commit_after_no_number_of_bodies_is_refused(site: TransferSite, after: str) -> None:
    alpha = site.peer()
    upload = alpha.open()
    assert alpha.code("POST", f"/uploads/{upload}/commit?after={after}", b"") == "invalid"


def test_an_upload_that_is_given_up_ends_the_commit_that_waits(site: TransferSite) -> None:
    alpha = site.peer()
    upload = alpha.open()
    path = f"/uploads/{upload}/commit?after=1"
    with side_by_side(partial(alpha.code, "POST", path, name_of(ONE))) as results:
        until(lambda: site.server.uploads.commits_waiting == 1, "a commit that waits")
        alpha.ask("DELETE", f"/uploads/{upload}")
    assert results == ["upload-missing"]


def test_a_master_that_could_not_be_told_of_an_image_is_told_again(
    site: TransferSite, pool: MemoryPool
) -> None:
    alpha = site.peer()
    upload = alpha.open()
    alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE))
    site.committed_failures.append(InputOutput("the master is away"))
    assert alpha.ask("POST", f"/uploads/{upload}/commit", name_of(ONE))[0] == 503
    assert alpha.ask("POST", f"/uploads/{upload}/commit", name_of(ONE))[0] == 200
    assert (len(pool.images), len(site.images)) == (1, 1)


def test_a_draft_of_chunks_that_never_came_makes_no_image(
    site: TransferSite, pool: MemoryPool
) -> None:
    alpha = site.peer()
    upload = alpha.open()
    assert alpha.code("POST", f"/uploads/{upload}/commit", name_of(ONE)) == "chunk-missing"
    assert pool.images == []
    alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE))
    assert alpha.ask("POST", f"/uploads/{upload}/commit", name_of(ONE))[0] == 200


def test_a_higher_fence_supersedes_and_the_zombie_commits_nothing(
    site: TransferSite, pool: MemoryPool
) -> None:
    alpha = site.peer()
    old, new = site.token(fence=1), site.token(fence=2)
    zombie = alpha.open(old)
    alpha.ask("POST", f"/uploads/{zombie}/blocks?seq=0", body_of(ONE), old)
    heir = alpha.open(new, attempt="b")
    assert pool.abandoned() == [True, False]
    for path in ("blocks?seq=1", "commit", "missing"):
        code = alpha.code("POST", f"/uploads/{zombie}/{path}", name_of(ONE), old)
        assert code == "fenced", path
    assert alpha.code("POST", "/uploads", b'{"read_all":false,"attempt":"c"}', old)
    assert alpha.ask("POST", f"/uploads/{heir}/commit", name_of(ONE), new)[0] == 200
    assert len(pool.images) == 1


def test_the_master_is_asked_before_anything_is_begun_and_committed(
    site: TransferSite, pool: MemoryPool
) -> None:
    alpha = site.peer()
    upload = alpha.open()
    alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE))
    site.fences[1] = 2
    assert alpha.code("POST", f"/uploads/{upload}/commit", name_of(ONE)) == "fenced"
    assert pool.images == []
    body = b'{"read_all":false,"attempt":"b"}'
    assert alpha.code("POST", "/uploads", body) == "fenced"


def test_an_upload_that_is_silent_for_its_lease_is_abandoned(
    site: TransferSite, pool: MemoryPool
) -> None:
    alpha = site.peer()
    upload = alpha.open()
    site.passed_s = site.limits.lease_s - 5
    site.in_loop(site.server.uploads.sweep())
    assert alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE))[0] == 204
    site.passed_s += site.limits.lease_s - 5
    site.in_loop(site.server.uploads.sweep())
    assert pool.abandoned() == [False]
    site.passed_s += 10
    site.in_loop(site.server.uploads.sweep())
    assert pool.abandoned() == [True]
    assert alpha.code("POST", f"/uploads/{upload}/commit", name_of(ONE)) == "upload-missing"
    # What was taken stays.
    assert name_of(ONE) in pool.chunks


def test_an_upload_at_work_is_not_silent(site: TransferSite, pool: MemoryPool) -> None:
    alpha = site.peer()
    upload = alpha.open()
    pool.gate.clear()
    with side_by_side(
        lambda: alpha.ask("POST", f"/uploads/{upload}/blocks?seq=0", body_of(ONE))
    ) as results:
        while "take" not in pool.calls:
            pass
        site.passed_s = site.limits.lease_s * 2
        site.in_loop(site.server.uploads.sweep())
        pool.gate.set()
    assert results == [(204, b"")]
    assert pool.abandoned() == [False]


def test_a_client_may_give_its_upload_up(site: TransferSite, pool: MemoryPool) -> None:
    alpha = site.peer()
    upload = alpha.open()
    assert alpha.ask("DELETE", f"/uploads/{upload}")[0] == 204
    assert pool.abandoned() == [True]
    assert alpha.code("DELETE", f"/uploads/{upload}") == "upload-missing"


def test_a_committed_upload_is_not_abandoned(site: TransferSite, pool: MemoryPool) -> None:
    back_up(site)
    site.passed_s = site.limits.lease_s * 2
    site.in_loop(site.server.uploads.sweep())
    assert pool.abandoned() == [False]
    assert len(site.server.uploads) == 0


def test_a_server_that_stops_abandons_what_is_at_work(tmp_path: Path, pool: MemoryPool) -> None:
    with transfer_site(tmp_path, pool) as site:
        site.peer().open()
    assert pool.abandoned() == [True]


def test_who_waits_for_an_answer_is_told_that_it_is_worked_on(
    tmp_path: Path, pool: MemoryPool
) -> None:
    limits = TransferLimits(sign_of_life_s=0.05)
    with transfer_site(tmp_path, pool, limits) as site:
        alpha = site.peer()
        upload = alpha.open()
        pool.gate.clear()
        body = body_of(ONE)
        connection = alpha.connection()
        connection.connect()
        connection.sock.sendall(
            f"POST /v1/transfer/uploads/{upload}/blocks?seq=0 HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {site.token()}\r\nExpect: 100-continue\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        file = connection.sock.makefile("rb")
        assert file.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert file.readline() == b"\r\n"
        connection.sock.sendall(body)
        for _ in range(3):
            assert file.readline() == b"HTTP/1.1 102 Processing\r\n"
            assert file.readline() == b"\r\n"
        pool.gate.set()
        lines = iter(file.readline, b"\r\n")
        while (line := next(lines, b"")) in (b"", b"HTTP/1.1 102 Processing\r\n"):
            lines = iter(file.readline, b"\r\n") if not line else lines
        assert line == b"HTTP/1.1 204 No Content\r\n"
        file.close()
        connection.close()
