"""Retention through the API: previewed, applied and asked for by name, for one's own clients."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.base import errors
from holdfast.base.clock import from_ns
from holdfast.base.ids import ImageId, JobId
from holdfast.control.access import Role, Scope
from holdfast.control.jobs import Wanted
from holdfast.control.retention import Rules
from holdfast.site.steward import Steward
from holdfast.wire.messages import SiteWork, WorkEvent, work_from_json
from tests.kit.policies import policy

if TYPE_CHECKING:
    from holdfast.faces.cli.api_client import ApiClient
    from tests.kit.api import Api
    from tests.kit.fake_pool import FakeImage, FakePool


@pytest.fixture
def made(api_on_both: Api) -> list[FakeImage]:
    """Five images of each of two clients, an hour apart, oldest first."""
    pool = cast("FakePool", api_on_both.master.site.pool)
    images = [pool.backup({}, f"{client}:/srv") for _ in range(5) for client in ("web1", "db1")]
    for image in images:
        api_on_both.master.catalog.record_image(image, pool.pool_id)
    clock = api_on_both.clock
    clock.set_by(from_ns(images[-1].finished_ns) - clock.now())
    return images


@pytest.fixture
def api(api_on_both: Api) -> Api:
    return api_on_both


def bounded(api: Api, role: Role = Role.ADMINISTRATOR) -> ApiClient:
    return api.client(api.token(role, Scope(("web*",))))


def of(made: list[FakeImage], client: str) -> list[str]:
    return [one.id for one in made if one.host == client]


def left(api: Api) -> set[str]:
    return {one.id for one in api.master.catalog.images()}


def carry_out(api: Api, job: int) -> list[WorkEvent]:
    """What a worker does with a job, or with its parts."""
    parts = api.master.jobs.page(Wanted(parent=JobId(job))) or [api.master.jobs.job(JobId(job))]
    events: list[WorkEvent] = []
    for part in parts:
        work = work_from_json(api.master.jobs.work(part.id))
        assert isinstance(work, SiteWork)
        events += Steward(api.master)(work, lambda _: None, lambda: None)
    return events


def all_verdicts(client: ApiClient, limit: int, **rules: Any) -> list[dict[str, Any]]:
    page = client.get("/retention/preview", limit=limit, **rules)
    found: list[dict[str, Any]] = page["items"]
    while page["next_cursor"] is not None:
        page = client.get("/retention/preview", limit=limit, cursor=page["next_cursor"], **rules)
        found += page["items"]
    return found


def test_a_preview_says_of_each_image_why_it_stays(api: Api, made: list[FakeImage]) -> None:
    client = api.client()
    api.master.catalog.hold(ImageId(made[0].id), "case 17")
    whole = client.get("/retention/preview", last=2)
    assert (whole["stay"], whole["go"], whole["doubts"], whole["clock_doubt"]) == (5, 5, [], None)
    verdicts = all_verdicts(client, 3, last=2)
    assert verdicts == whole["items"]
    assert [one["image"] for one in verdicts] == of(made, "db1") + of(made, "web1")
    stays = {one["image"]: one["reasons"] for one in verdicts if one["stays"]}
    assert stays[made[0].id] == ["held: case 17"]
    assert stays[made[-1].id] == ["last 1 of 2"]
    only = client.get("/retention/preview", within_s=3600 * 2.5, source="db1:/srv")
    assert {one["source"] for one in only["items"]} == {"db1:/srv"}
    assert (only["stay"], only["go"]) == (2, 3)
    # Nothing was changed, nor noted as if it had been.
    assert left(api) == {one.id for one in made}
    with pytest.raises(errors.NotFound, match="no source 'x'"):
        client.get("/retention/preview", source="x")
    with pytest.raises(errors.NotFound, match="no time zone"):
        client.get("/retention/preview", last=1, zone="Mars/Olympus")


def test_without_rules_each_image_is_judged_by_its_policy(api: Api, made: list[FakeImage]) -> None:
    client = api.client()
    found = client.get("/retention/preview")
    assert {tuple(one["reasons"]) for one in found["items"]} == {("there is no rule",)}
    with pytest.raises(errors.NotFound, match="no rule says what to keep"):
        client.post("/retention/applications", {})
    with pytest.raises(errors.NotFound, match="no rule says what to keep"):
        client.post("/retention/applications", {"rules": {"last": 0}})
    plan = api.master.policies.plan([policy(retention=Rules(last=1))], prune=True)
    api.master.policies.apply(plan, "a test")
    job = client.post("/retention/applications", {})["job"]
    carry_out(api, job)
    # They were ordered by hand, so that no policy speaks of them.
    assert left(api) == {one.id for one in made}


def test_rules_are_applied_by_a_job(api: Api, made: list[FakeImage]) -> None:
    client = api.client()
    api.master.catalog.hold(ImageId(made[0].id), "case 17")
    body = {"rules": {"last": 1, "within_s": 3600.0 * 2.5}, "zone": "UTC"}
    queued = client.post("/retention/applications", body)
    assert queued["parts"] == 0
    job = api.master.jobs.job(JobId(queued["job"]))
    assert (job.kind, job.client, job.source) == ("expire", None, None)
    goes = {one["image"] for one in all_verdicts(client, 100, last=1, within_s=9000)}
    goes -= {
        one["image"] for one in all_verdicts(client, 100, last=1, within_s=9000) if one["stays"]
    }
    events = carry_out(api, queued["job"])
    assert events[0].message == f"{len(goes)} of 10 images are gone"
    assert left(api) == {one.id for one in made} - goes
    assert made[0].id in left(api)
    # A second worker that takes it up finds nothing more to do.
    assert carry_out(api, queued["job"])[0].message == f"0 of {10 - len(goes)} images are gone"
    assert api.audited()[-1].entry.what == "apply_retention"


def test_one_source_is_treated_alone(api: Api, made: list[FakeImage]) -> None:
    client = api.client()
    body = {"rules": {"last": 1}, "source": "db1:/srv"}
    queued = client.post("/retention/applications", body)
    job = api.master.jobs.job(JobId(queued["job"]))
    assert (job.client, job.source) == ("db1", "db1:/srv")
    carry_out(api, queued["job"])
    assert left(api) == {*of(made, "web1"), of(made, "db1")[-1]}
    with pytest.raises(errors.NotFound):
        client.post("/retention/applications", {**body, "source": "x"})


def test_whoever_is_bounded_judges_own_clients_alone(api: Api, made: list[FakeImage]) -> None:
    client = bounded(api)
    seen = client.get("/retention/preview", last=1)
    assert [one["image"] for one in seen["items"]] == of(made, "web1")
    assert (seen["stay"], seen["go"]) == (1, 4)
    for source in ("db1:/srv", "x"):
        with pytest.raises(errors.NotFound, match="no source"):
            client.get("/retention/preview", last=1, source=source)
        with pytest.raises(errors.NotFound, match="no source"):
            client.post("/retention/applications", {"rules": {"last": 1}, "source": source})
    with pytest.raises(errors.Forbidden, match="all clients"):
        client.post("/retention/applications", {"rules": {"last": 1}, "trust_clock": True})
    job = client.post("/retention/applications", {"rules": {"last": 1}})["job"]
    assert client.get(f"/jobs/{job}")["client"] == "web1"
    carry_out(api, job)
    assert left(api) == {*of(made, "db1"), of(made, "web1")[-1]}
    nobody = api.client(api.token(Role.ADMINISTRATOR, Scope(("mail*",)), "nobody"))
    assert nobody.get("/retention/preview", last=1)["items"] == []
    with pytest.raises(errors.NotFound):
        nobody.post("/retention/applications", {"rules": {"last": 1}})


def test_nothing_goes_while_the_clock_is_in_doubt(api: Api, made: list[FakeImage]) -> None:
    client = api.client()
    carry_out(api, client.post("/retention/applications", {"rules": {"last": 4}})["job"])
    api.clock.set_by(timedelta(days=400))
    assert client.get("/retention/preview", last=1)["clock_doubt"]
    with pytest.raises(errors.ClockDoubtful, match="nothing is let go"):
        client.post("/retention/applications", {"rules": {"last": 1}})
    client.post("/retention/applications", {"rules": {"last": 1}, "trust_clock": True})
    assert client.get("/retention/preview", last=1)["clock_doubt"] is None


def test_images_go_by_name_all_or_none(api: Api, made: list[FakeImage]) -> None:
    client = api.client()
    held, first, second = (one.id for one in made[:3])
    api.master.catalog.hold(ImageId(held), "case 17")
    with pytest.raises(errors.ImageProtected, match="is held"):
        client.post("/expirations", {"images": [first, held]})
    with pytest.raises(errors.ImageMissing):
        client.post("/expirations", {"images": [first, "0" * 32]})
    with pytest.raises(errors.Invalid):
        client.post("/expirations", {"images": []})
    assert api.master.jobs.count() == 0
    queued = client.post("/expirations", {"images": [first, second, first]})
    assert queued["parts"] == 0
    # Held between being asked for and being done: again none goes.
    api.master.catalog.hold(ImageId(second), "late")
    with pytest.raises(errors.ImageProtected):
        carry_out(api, queued["job"])
    assert left(api) == {one.id for one in made}
    api.master.catalog.unhold(ImageId(second))
    carry_out(api, queued["job"])
    assert left(api) == {one.id for one in made} - {first, second}
    (event, *_) = carry_out(api, client.post("/expirations", {"images": [made[3].id]})["job"])
    assert (event.cause, event.message) == ("expired", f"image {made[3].id} is gone")


def test_whoever_is_bounded_lets_own_images_go(api: Api, made: list[FakeImage]) -> None:
    client = api.client(api.token(Role.ADMINISTRATOR, Scope(("web1", "app*")), "bounded"))
    mine, theirs = of(made, "web1"), of(made, "db1")
    with pytest.raises(errors.ImageMissing):
        client.post("/expirations", {"images": [mine[0], theirs[0]]})
    job = client.post("/expirations", {"images": mine[:2]})["job"]
    assert client.get(f"/jobs/{job}")["kind"] == "expire"
    carry_out(api, job)
    assert left(api) == {*mine[2:], *theirs}
