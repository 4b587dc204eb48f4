"""Machines that run from their images, as the API has them: who may, what is refused, how it is."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import (
    AlreadyExists,
    Forbidden,
    Invalid,
    NotFound,
    Unsupported,
    WrongState,
)
from holdfast.base.ids import JobId
from holdfast.control.access import Role, Scope
from holdfast.control.jobs import BY_SITE, JobKind, Outcome, Result
from holdfast.control.jobs.job import JobError
from holdfast.site import instant, machine_work
from holdfast.wire.machine_work import InstantWork
from holdfast.wire.messages import ImageNote, work_from_json
from tests.kit.virtual_machines import hypervisor, machine, uuid

if TYPE_CHECKING:
    from tests.kit.api import Api

IMAGE, FILES = "ab" * 16, "cd" * 16
URL = f"/images/{IMAGE}/instant-recoveries"
KEY = b"k" * 32
NEW = {"hypervisor": "kvm2", "name": "web9", "keep_identity": False}


@pytest.fixture
def api(api: Api) -> Api:
    """Two hypervisors, an image of the machine that runs on one of them, and one of files."""
    book = api.master.hypervisors
    book.add(hypervisor("kvm1"), {"user": "u", "password": "s3cret"}, KEY)
    book.add(hypervisor("kvm2"), {}, KEY)
    book.add(hypervisor("shelf", kind="diskfiles"), {}, KEY)
    book.found("kvm1", [machine("web1", 1, host="kvm1")])
    for id_, source in ((IMAGE, f"machine:{uuid(1)}"), (FILES, "web1:/srv")):
        when = 10**18
        note = ImageNote(id_, 1, source, "web1", when, when, None, "completed", {}, 0, "x", {})
        api.master.catalog.record_image(note, api.master.site.pool_id)
    return api


def begun(api: Api, job: int, **counters: int) -> int:
    """Have a worker begin a job; its fence."""
    (granted,) = api.master.jobs.grant([JobId(job)])
    api.master.jobs.progress(JobId(job), granted.job.fence, counters)
    return granted.job.fence


def shown(api: Api, number: int) -> dict[str, Any]:
    instant.settle(api.master)
    found: dict[str, Any] = api.client().get(f"/instant-recoveries/{number}")
    return found


UP = {"machine_up": 1, "machine_running": 1, "disks_needed": 2}


def test_one_is_a_job_of_who_reaches_the_hypervisor_and_holds_its_image(api: Api) -> None:
    made = api.client().post(URL, {**NEW, "networks": [], "format": "raw"})
    assert (made["state"], made["name"], made["begun_by"]) == (
        "starting",
        "web9",
        "local:root",
    )
    assert made["machine"] != uuid(1)
    job = api.master.jobs.job(JobId(made["serve_job"]))
    assert (job.kind, job.worker, job.storage_unit) == (JobKind.INSTANT, BY_SITE, None)
    work = work_from_json(api.master.jobs.work(job.id))
    assert isinstance(work, InstantWork)
    assert (work.step, work.machine, work.networks, work.format, work.begun) == (
        "serve",
        made["machine"],
        (),
        "raw",
        False,
    )
    # How it is reached, and whether it was up, is said when it is given out.
    begun(api, job.id, **UP)
    assert shown(api, made["id"])["disks_needed"] == 2
    done = machine_work.complete(api.master, job, work)
    assert isinstance(done, InstantWork)
    assert done.begun
    assert done.reached is not None
    assert "runs from it" in str(api.master.catalog.protections())


def test_how_it_is_follows_its_jobs(api: Api) -> None:
    client = api.client()
    number = client.post(URL, NEW)["id"]
    serve = shown(api, number)["serve_job"]
    with pytest.raises(WrongState, match="is starting"):
        client.post(f"/instant-recoveries/{number}/migrate", {})
    fence = begun(api, serve, **UP)
    assert shown(api, number)["state"] == "running"
    api.master.jobs.progress(JobId(serve), fence, {**UP, "machine_running": 0, "machine_stuck": 1})
    stuck = shown(api, number)
    assert stuck["state"] == "standing still"
    assert "what it wrote is safe" in stuck["words"]
    api.master.jobs.progress(JobId(serve), fence, {**UP, "machine_running": 0})
    assert shown(api, number)["state"] == "off"
    api.master.jobs.progress(JobId(serve), fence, UP)
    moving = client.post(f"/instant-recoveries/{number}/migrate", {})
    assert moving["state"] == "migrating"
    begun(api, moving["migrate_job"], size_bytes=1, bytes_total=4)
    assert (shown(api, number)["moved_bytes"], shown(api, number)["moved_of_bytes"]) == (1, 4)
    with pytest.raises(WrongState, match="is migrating"):
        client.post(f"/instant-recoveries/{number}/migrate", {})
    api.master.jobs.end(JobId(serve), fence, Result(Outcome.COMPLETED))
    own = shown(api, number)
    assert own["state"] == "own"
    assert own["ended_at"] is not None
    assert api.master.catalog.protections() == {}
    for act in ("migrate", "resume", "discard"):
        with pytest.raises(WrongState, match="has ended"):
            client.post(f"/instant-recoveries/{number}/{act}", {})


def test_what_is_served_no_more_is_served_again(api: Api) -> None:
    client = api.client()
    number = client.post(URL, NEW)["id"]
    serve = shown(api, number)["serve_job"]
    fence = begun(api, serve, **UP)
    shown(api, number)
    with pytest.raises(WrongState, match=f"is served by job {serve}"):
        client.post(f"/instant-recoveries/{number}/resume", {})
    # Its worker dies, again and again: that is never held against it.
    for _ in range(5):
        lost = JobError("worker-lost", "its worker was killed")
        after = api.master.jobs.end(JobId(serve), fence, Result(Outcome.FAILED, error=lost))
        assert after.status == "queued"
        assert shown(api, number)["state"] == "not served"
        api.clock.move(timedelta(seconds=60))
        fence = begun(api, serve, **UP)
        assert shown(api, number)["state"] == "running"
    api.master.jobs.cancel(JobId(serve))
    api.master.jobs.end(JobId(serve), fence, Result(Outcome.CANCELLED))
    unserved = shown(api, number)
    assert (unserved["state"], unserved["serve_job"]) == ("not served", serve)
    again = client.post(f"/instant-recoveries/{number}/resume", {})
    assert again["serve_job"] != serve


def test_what_could_not_be_begun_is_held_no_more(api: Api) -> None:
    number = api.client().post(URL, NEW)["id"]
    serve = shown(api, number)["serve_job"]
    fence = begun(api, serve)
    wrong = JobError("usage", "that is no place for disks")
    api.master.jobs.end(JobId(serve), fence, Result(Outcome.FAILED, error=wrong))
    failed = shown(api, number)
    assert (failed["state"], failed["error"]) == ("failed", "that is no place for disks")
    assert api.master.catalog.protections() == {}


def test_what_is_discarded_is_served_no_more(api: Api) -> None:
    client = api.client()
    number = client.post(URL, NEW)["id"]
    serve = shown(api, number)["serve_job"]
    gone = client.post(f"/instant-recoveries/{number}/discard", {})
    assert gone["state"] == "discarding"
    assert api.master.jobs.job(JobId(serve)).outcome is Outcome.CANCELLED
    fence = begun(api, gone["discard_job"])
    api.master.jobs.end(JobId(gone["discard_job"]), fence, Result(Outcome.COMPLETED))
    assert shown(api, number)["state"] == "discarded"
    assert client.get("/instant-recoveries", ended="false")["items"] == []
    assert [one["id"] for one in client.get("/instant-recoveries")["items"]] == [number]


def test_what_makes_no_sense_is_refused(api: Api) -> None:
    client = api.client()
    with pytest.raises(Invalid, match="is of files"):
        client.post(f"/images/{FILES}/instant-recoveries", NEW)
    with pytest.raises(Unsupported, match="'diskfiles', which can't run a machine"):
        client.post(URL, {**NEW, "hypervisor": "shelf"})
    with pytest.raises(NotFound, match="no hypervisor 'kvm3'"):
        client.post(URL, {**NEW, "hypervisor": "kvm3"})
    with pytest.raises(WrongState, match="'web1' is running"):
        client.post(URL, {"hypervisor": "kvm2"})
    with pytest.raises(AlreadyExists, match="has a machine 'web1' already"):
        client.post(URL, {"hypervisor": "kvm1", "keep_identity": False})
    client.post(URL, NEW)
    with pytest.raises(AlreadyExists, match="of the name 'web9'"):
        client.post(URL, NEW)
    with pytest.raises(NotFound, match="no instant recovery 99"):
        client.get("/instant-recoveries/99")


def test_who_may_not_see_the_machine_does_nothing_with_it(api: Api) -> None:
    number = api.client().post(URL, NEW)["id"]
    other = api.client(api.token(Role.RESTORE_OPERATOR, Scope.of(["web1"])))
    with pytest.raises(Forbidden, match="web8"):
        other.post(URL, {**NEW, "name": "web8"})
    assert other.get("/instant-recoveries")["items"] == []
    with pytest.raises(NotFound):
        other.get(f"/instant-recoveries/{number}")
    for act in ("migrate", "resume", "discard"):
        with pytest.raises(NotFound):
            other.post(f"/instant-recoveries/{number}/{act}", {})
