"""The pool through the API: what it holds, and jobs for it as a whole."""

from __future__ import annotations

import os
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.base import errors
from holdfast.base.clock import SystemClock
from holdfast.base.ids import JobId
from holdfast.site import places, pool_care, steward
from holdfast.site.steward import Steward
from holdfast.vault import KeyFile, Passphrase, add_slot, create_pool, unwrap
from holdfast.wire.messages import SiteWork, WorkEvent, work_from_json
from tests.kit.fake_pool import FakePool, tree_of
from tests.kit.real_pool import put_image, put_pool

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.api import Api


def do(api: Api, work: SiteWork) -> list[WorkEvent]:
    return Steward(api.master)(work, lambda _: None, lambda: None)


def said(events: list[WorkEvent]) -> list[tuple[str, str]]:
    return [(one.severity, one.cause) for one in events]


def test_the_pool_says_what_it_holds(api: Api) -> None:
    found = api.client().get("/pool")
    assert (found["pool_id"], found["images"]) == (api.master.site.config.pool_id, 0)


@pytest.mark.parametrize(
    ("path", "body", "kind", "verb"),
    [
        ("/pool/collections", None, "collect", "collect"),
        ("/pool/collections", {"dry_run": True}, "collect", "collect-preview"),
        ("/pool/checks", {}, "verify", "check"),
        ("/pool/checks", {"read_data": True}, "verify", "check-data"),
        ("/pool/index", None, "index", "rebuild-index"),
        ("/catalog/updates", None, "catalog", "update-catalog"),
        ("/catalog/rebuilds", None, "catalog", "rebuild-catalog"),
        ("/pool/verifications", {}, "verify", "verify"),
        ("/pool/verifications", {"read_data": True}, "verify", "verify-data"),
        ("/catalog/protection", None, "catalog-backup", "catalog-backup"),
    ],
)
def test_what_is_done_for_the_site_is_a_job(
    api: Api, path: str, body: dict[str, Any] | None, kind: str, verb: str
) -> None:
    job = JobId(api.client().post(path, body)["job"])
    assert api.master.jobs.job(job).kind == kind
    assert work_from_json(api.master.jobs.work(job)) == SiteWork(verb)


@pytest.mark.parametrize("verb", [steward.VERIFY, steward.VERIFY_DATA])
def test_a_verification_tells_every_problem_and_the_verdict(
    api: Api, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    problem = SimpleNamespace(code="chunk-missing", message="it is gone", path=b"")
    found = SimpleNamespace(images=3, chunks=9, problems=[problem], problems_total=2)

    def verify(_pool: object, images: object, *, read_data: bool, report: object) -> Any:
        assert (images, read_data) == (None, verb == "verify-data")
        return found

    monkeypatch.setattr(pool_care, "run_verify", verify)
    events = do(api, SiteWork(verb))
    # The verdict first: of many events the last are not kept.
    assert [(one.severity, one.cause) for one in events] == [
        ("error", "verified"),
        ("error", "chunk-missing"),
    ]
    assert "2 problems; the first 1 are listed" in events[0].message
    found.problems, found.problems_total = [], 0
    (event,) = do(api, SiteWork(verb))
    assert (event.severity, event.message) == ("info", "3 images, 9 chunks: 0 problems")


def test_a_verb_that_nobody_knows_is_refused(api: Api) -> None:
    with pytest.raises(errors.Invalid, match="'dance' is nothing that is done for a site"):
        do(api, SiteWork("dance"))


def test_a_real_pool_is_cared_for_by_jobs(api: Api, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(random.Random(3).randbytes(200_000))
    put_pool(api, tmp_path / "real")
    first = put_image(api, "web1", os.fsencode(tree))
    (tree / "file").write_bytes(random.Random(4).randbytes(200_000))
    second = put_image(api, "web1", os.fsencode(tree))
    client = api.client()
    assert client.get("/catalog")["states"]["pending"] == 2
    assert said(do(api, SiteWork(steward.UPDATE_CATALOG))) == [("info", "fed")]
    assert client.get("/catalog") == {
        "images": 2,
        "states": {"indexed": 2} | dict.fromkeys(("pending", "failed", "expiring"), 0),
    }
    job = JobId(client.post("/pool/verifications", {"images": [second, second]})["job"])
    work = work_from_json(api.master.jobs.work(job))
    assert work == SiteWork("verify", (second,))
    assert isinstance(work, SiteWork)
    (verdict,) = do(api, work)
    assert verdict.message.startswith("1 images, ")
    with pytest.raises(errors.ImageMissing):
        client.post("/pool/verifications", {"images": ["0" * 32]})
    do(api, SiteWork(steward.EXPIRE_IMAGES, (first,)))
    (preview,) = do(api, SiteWork(steward.COLLECT_PREVIEW))
    assert preview.cause == "preview"
    assert "KiB would be freed" in preview.message
    (same,) = do(api, SiteWork(steward.COLLECT_PREVIEW))
    assert same.message == preview.message
    for verb, cause in (
        (steward.COLLECT, "collected"),
        (steward.CHECK, "checked"),
        (steward.CHECK_DATA, "checked"),
        (steward.REBUILD_INDEX, "rebuilt"),
        (steward.REBUILD_CATALOG, "rebuilt"),
        (steward.VERIFY_DATA, "verified"),
    ):
        assert said(do(api, SiteWork(verb))) == [("info", cause)], verb
    assert [one["id"] for one in client.get("/images")["items"]] == [second]
    assert client.get("/find", pattern="file")["items"][0]["images"] == 1


def test_an_image_that_can_not_be_fed_keeps_no_other_waiting(api: Api) -> None:
    pool = cast("FakePool", api.master.site.pool)
    images = [pool.backup(tree_of(b"/srv/a"), f"web{number}:/srv") for number in range(3)]
    for image in images:
        api.master.catalog.record_image(image, pool.pool_id)
    pool.damaged.add(images[1].id)
    events = do(api, SiteWork(steward.UPDATE_CATALOG))
    assert said(events) == [("info", "fed"), ("error", "integrity")]
    assert events[0].message == "images fed: 2"


def test_a_worker_that_is_to_stop_does(api: Api) -> None:
    pool = cast("FakePool", api.master.site.pool)
    images = [pool.backup({}, "web1:/srv") for _ in range(5)]
    for image in images:
        api.master.catalog.record_image(image, pool.pool_id)

    def stop() -> None:
        raise errors.Cancelled("told to")

    work = SiteWork(steward.EXPIRE_IMAGES, tuple(one.id for one in images))
    with pytest.raises(errors.Cancelled):
        Steward(api.master)(work, lambda _: None, stop)
    assert len(api.master.catalog.images()) == 4
    with pytest.raises(errors.Cancelled):
        Steward(api.master)(SiteWork(steward.UPDATE_CATALOG), lambda _: None, stop)


def test_key_slots_are_listed_without_what_they_hold(api: Api, tmp_path: Path) -> None:
    place = str(tmp_path / "pool")
    pool = create_pool(place, secret=Passphrase("correct horse"), clock=SystemClock())
    key = unwrap(place, Passphrase("correct horse"))
    file = KeyFile(tmp_path / "key")
    file.make()
    add_slot(place, key, file)
    assert pool.id
    slots = api.client().get("/pool/keys")["items"]
    assert sorted((one["kind"], one["memory_kib"], one["passes"]) for one in slots) == [
        ("key-file", None, None),
        ("passphrase", 32768, 3),
    ]
    assert set(slots[0]) == {"id", "kind", "memory_kib", "passes", "lanes"}


def test_where_a_pool_lies_is_told_without_secrets() -> None:
    for url, shown in (
        ("/srv/pool", "/srv/pool"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://id:secret@bucket/prefix?key=secret#secret", "s3://bucket/prefix"),
    ):
        assert places.without_secrets(url) == shown
