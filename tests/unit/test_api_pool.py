"""The pool through the API: what it holds, and jobs for it as a whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.ids import JobId
from holdfast.site import steward
from holdfast.site.steward import Steward
from holdfast.wire.messages import SiteWork, work_from_json

if TYPE_CHECKING:
    from tests.kit.api import Api


def test_the_pool_says_what_it_holds(api: Api) -> None:
    found = api.client().get("/pool")
    assert (found["pool_id"], found["images"]) == (api.master.site.config.pool_id, 0)


@pytest.mark.parametrize(
    ("path", "body", "kind", "verb"),
    [
        ("/pool/collections", None, "collect", "collect"),
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

    monkeypatch.setattr(steward, "run_verify", verify)
    events = Steward(api.master)(verb, lambda _: None)
    assert [(one.severity, one.cause) for one in events] == [
        ("error", "chunk-missing"),
        ("error", "verified"),
    ]
    assert "2 problems; the first 1 are listed" in events[-1].message
    found.problems, found.problems_total = [], 0
    (event,) = Steward(api.master)(verb, lambda _: None)
    assert (event.severity, event.message) == ("info", "3 images, 9 chunks: 0 problems")
