"""Jobs, their events and the activity log through the API."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import openpyxl
import pytest

from holdfast.base import errors
from holdfast.base.ids import ClientName, JobId, PolicyName, SourceName
from holdfast.control.access import Role, Scope
from holdfast.control.jobs import (
    JobError,
    JobKind,
    NewJob,
    Outcome,
    Remark,
    Result,
    Severity,
)
from holdfast.site.steward import Steward
from tests.kit.api import Api

REMARKS = [
    Remark(Severity.ERROR, "no permission", "may not", matters=True, path=b"/etc/\xff"),
    Remark(Severity.WARNING, "vanished between scan and read", "=it went", path=b"/tmp/a"),
]


def backup(client: str = "web1", path: str = "/srv", **more: Any) -> NewJob:
    given: dict[str, Any] = {
        "kind": JobKind.BACKUP,
        "work": {"secret": "of the worker"},
        "policy": PolicyName("nightly"),
        "client": ClientName(client),
        "source": SourceName(f"{client}:{path}"),
    }
    return NewJob(**given | more)


def add(api: Api, *new: NewJob) -> list[JobId]:
    return [one.id for one in api.master.jobs.enqueue(new or (backup(),))]


def begin(api: Api, job: JobId) -> int:
    return api.master.jobs.grant([job])[0].job.fence


def end(api: Api, job: JobId, outcome: Outcome = Outcome.COMPLETED, **more: Any) -> None:
    counters = {"files": 10, "online_bytes": 1000 * job, "transmitted_bytes": 7}
    result = Result(outcome, counters=counters, **more)
    api.master.jobs.end(job, begin(api, job), result, REMARKS)


def test_a_job_is_shown_with_all_that_concerns_people_and_nothing_else(api: Api) -> None:
    (job,) = add(api)
    api.master.jobs.waits({job: ("storage unit 'default'", "it has 2 of 2 slots in use: jobs 1")})
    shown = api.client().get(f"/jobs/{job}")
    assert shown["waits_for"] == "it has 2 of 2 slots in use: jobs 1"
    assert (shown["state"], shown["status"], shown["client"]) == ("queued", "queued", "web1")
    end(api, job, Outcome.COMPLETED_WITH_ERRORS)
    shown = api.client().get(f"/jobs/{job}")
    assert shown["status"] == "completed with errors"
    assert shown["outcome"] == "completed-with-errors"
    assert shown["counters"]["online_bytes"] == 1000 * job
    assert shown["duration_s"] == 0
    assert (shown["events"], shown["events_left_out"]) == (2, 0)
    assert not {"fence", "lease_until", "work"} & shown.keys()


def test_jobs_are_filtered_sorted_and_paged(api: Api) -> None:
    jobs = add(api, *(backup(f"c{number % 3}", priority=number % 4) for number in range(20)))
    for job in jobs[:10]:
        end(api, job, Outcome.FAILED if job % 2 else Outcome.COMPLETED)
    client = api.client()
    everything = list(client.pages("/jobs"))
    assert [one["id"] for one in everything] == jobs[::-1]
    some = client.get("/jobs", limit=7, sort="priority", order="ascending")
    rest = client.get(
        "/jobs", limit=1000, sort="priority", order="ascending", cursor=some["next_cursor"]
    )
    assert [(one["priority"], one["id"]) for one in some["items"] + rest["items"]] == sorted(
        (number % 4, job) for number, job in enumerate(jobs)
    )
    assert {one["client"] for one in client.pages("/jobs", client=["c0", "c2"])} == {"c0", "c2"}
    failed = list(client.pages("/jobs", outcome="failed", state="ended"))
    assert [one["id"] for one in failed] == [job for job in jobs[:10] if job % 2][::-1]
    with pytest.raises(errors.NotFound, match="cursor"):
        client.get("/jobs", cursor=some["next_cursor"])


def test_a_family_is_listed_by_its_top_and_by_its_parts(api: Api) -> None:
    (parent,) = add(api, backup(source=None, parts=(backup(path="/a"), backup(path="/b"))))
    client = api.client()
    assert [one["id"] for one in client.pages("/jobs", tops=True)] == [parent]
    parts = list(client.pages("/jobs", parent=parent, sort="source", order="ascending"))
    assert [one["source"] for one in parts] == ["web1:/a", "web1:/b"]
    assert client.get(f"/jobs/{parent}")["children"] == 2


def test_acts_are_done_told_of_and_refused_in_clear_words(api: Api) -> None:
    job, other = add(api, backup(), backup())
    client = api.client()
    assert client.post(f"/jobs/{job}/suspend")["suspended"]
    assert not client.post(f"/jobs/{job}/resume")["suspended"]
    with pytest.raises(errors.WrongState, match=f"job {job} is not suspended"):
        client.post(f"/jobs/{job}/resume")
    assert client.post(f"/jobs/{job}/cancel")["outcome"] == "cancelled"
    again = client.post(f"/jobs/{job}/restart")
    assert (again["restart_of"], again["state"]) == (job, "queued")
    fence = begin(api, other)
    assert client.post(f"/jobs/{other}/cancel")["asked"] == "cancel"
    assert api.master.jobs.progress(other, fence) == "cancel"
    with pytest.raises(errors.JobMissing, match="no job 99"):
        client.post("/jobs/99/cancel")
    http = api.http(api.token(Role.OPERATOR, name="alice"))
    answer = http.post(f"/api/v1/jobs/{again['id']}/cancel")
    assert answer.status_code == 200
    answer = http.post(f"/api/v1/jobs/{job}/restart")
    assert answer.headers["Location"] == f"/api/v1/jobs/{answer.json()['id']}"
    (event,) = client.get(f"/jobs/{again['id']}/events", sort="seq", order="descending", limit=1)[
        "items"
    ]
    assert event["message"] == "it was cancelled, as alice asked"
    assert http.post(f"/api/v1/jobs/{job}/resume").status_code == 409
    assert ("cancel_job", f"jobs/{job}/cancel", "done") in [
        (row.entry.what, row.entry.about, row.entry.outcome) for row in api.audited()
    ]


def test_who_is_bounded_to_some_clients_sees_and_touches_theirs_only(api: Api) -> None:
    mine, other = add(api, backup("web1"), backup("mail1"))
    (site_wide,) = add(api, NewJob(kind=JobKind.COLLECT))
    for job in (mine, other):
        end(api, job)
    client = api.client(api.token(Role.OPERATOR, Scope(("web*",)), "bob"))
    assert [one["id"] for one in client.pages("/jobs")] == [mine]
    assert [one["job"] for one in client.pages("/activity")] == [mine]
    numbers = client.get("/activity/numbers")
    assert (numbers["outcomes"], numbers["states"]) == ({"completed": 1}, {})
    told = b"".join(client.text("/activity/export")).decode()
    assert "web1:/srv" in told
    assert "mail1" not in told
    for hidden in (other, site_wide):
        for path in ("", "/events", "/events/export", "/progress"):
            with pytest.raises(errors.JobMissing):
                b"".join(client.text(f"/jobs/{hidden}{path}"))
        for act in ("cancel", "suspend", "resume", "restart"):
            with pytest.raises(errors.JobMissing):
                client.post(f"/jobs/{hidden}/{act}")
    assert api.master.jobs.job(site_wide).outcome is None


def test_events_keep_the_bytes_of_paths(api: Api) -> None:
    (job,) = add(api)
    end(api, job)
    client = api.client()
    first, second = client.pages(f"/jobs/{job}/events")
    assert (first["path"], bytes.fromhex(first["path_hex"])) == ("/etc/\\xff", b"/etc/\xff")
    assert (first["cause"], first["matters"]) == ("no permission", True)
    assert list(client.pages(f"/jobs/{job}/events", matters=False)) == [second]
    assert list(client.pages(f"/jobs/{job}/events", severity="error")) == [first]
    by_path = client.get(f"/jobs/{job}/events", sort="path", order="descending", limit=1)
    assert by_path["items"] == [second]
    after = client.get(
        f"/jobs/{job}/events",
        sort="path",
        order="descending",
        limit=1,
        cursor=by_path["next_cursor"],
    )
    assert after["items"] == [first]


def test_the_activity_log_has_what_began(api: Api) -> None:
    jobs = add(api, backup("web1"), backup("web2"), backup("web3"))
    start = api.clock.now()
    end(api, jobs[0])
    api.clock.move(timedelta(days=1))
    begin(api, jobs[1])
    client = api.client()
    active, ended = client.pages("/activity")
    assert (active["job"], active["status"], active["ended_at"]) == (jobs[1], "active", None)
    assert (ended["files"], ended["online_bytes"], ended["transmitted_bytes"]) == (10, 1000, 7)
    assert ended["source"] == "web1:/srv"
    since = (start + timedelta(hours=1)).isoformat()
    assert [one["job"] for one in client.pages("/activity", since=since)] == [jobs[1]]
    by_size = client.pages("/activity", sort="online_bytes", order="descending")
    assert [one["job"] for one in by_size] == [jobs[0], jobs[1]]
    numbers = client.get("/activity/numbers", since=start.isoformat())
    assert numbers["states"] == {"queued": 1, "active": 1}
    assert numbers["outcomes"] == {"completed": 1}
    assert numbers["queue"][0]["jobs"] == 1


def test_lists_are_downloaded_as_text_csv_and_workbooks(api: Api) -> None:
    (job,) = add(api)
    end(api, job)
    http = api.http(api.token(Role.AUDITOR))
    plain = http.get("/api/v1/activity/export", params={"format": "text", "zone": "Asia/Tokyo"})
    assert plain.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "2026-01-02 12:04:05" in plain.text
    table = http.get("/api/v1/activity/export")
    assert table.headers["Content-Disposition"] == (
        'attachment; filename="activity-2026-01-02.csv"'
    )
    assert '"web1:/srv"' in table.text
    book = http.get(f"/api/v1/jobs/{job}/events/export", params={"format": "xlsx"})
    sheet = openpyxl.load_workbook(io.BytesIO(book.content)).worksheets[0]
    assert sheet.max_row == 3
    assert sheet["H3"].value == "=it went"
    assert sheet["H3"].data_type == "s"
    assert http.get("/api/v1/activity/export", params={"zone": "Nowhere"}).status_code == 404


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/jobs", {"sort": "color"}),
        ("/jobs", {"order": "sideways"}),
        ("/jobs", {"state": "tired"}),
        ("/jobs", {"parent": "0"}),
        ("/jobs/0", {}),
        ("/jobs/9223372036854775808", {}),
        ("/activity", {"since": "yesterday"}),
        ("/activity", {"client": "a\0b"}),
        ("/jobs/1/events", {"sort": "color"}),
        ("/activity/export", {"format": "pdf"}),
        ("/activity/export", {"sort": "color"}),
        ("/jobs/1/progress", {"interval_s": "0"}),
    ],
)
def test_bad_input_is_refused(api: Api, path: str, parameters: dict[str, str]) -> None:
    add(api)
    with pytest.raises(errors.Invalid):
        b"".join(api.client().text(path, **parameters))


def test_times_beyond_what_a_database_holds_are_no_defect(api: Api) -> None:
    add(api)
    client = api.client()
    since, until = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
    assert len(client.get("/jobs", since=since, until=until)["items"]) == 1
    assert client.get("/activity/numbers", since=since, until=until)["outcomes"] == {}


def test_a_job_is_followed_until_it_has_ended(api: Api) -> None:
    (job,) = add(api)
    stream = api.client().events(f"/jobs/{job}/progress", interval_s=0.1)
    assert next(stream).json()["state"] == "queued"
    fence = begin(api, job)
    assert next(stream).json()["state"] == "active"
    api.master.jobs.progress(job, fence, {"files": 5})
    told = next(stream)
    assert (told.event, told.json()["counters"]["files"]) == ("job", 5)
    failed = Result(Outcome.FAILED, error=JobError("no-permission", "may not", "ask"))
    api.master.jobs.end(job, fence, failed)
    last = next(stream).json()
    assert (last["outcome"], last["error"]["hint"]) == ("failed", "ask")
    assert list(stream) == []


def test_a_job_that_has_ended_is_told_once(api: Api) -> None:
    (job,) = add(api)
    end(api, job)
    (only,) = api.client().events(f"/jobs/{job}/progress")
    assert json.loads(only.data)["outcome"] == "completed"


def test_moments_come_out_in_utc(api: Api) -> None:
    (job,) = add(api, backup(due_at=datetime(2026, 1, 2, 3, tzinfo=UTC)))
    assert api.client().get(f"/jobs/{job}")["due_at"] == "2026-01-02T03:00:00Z"


def test_housekeeping_forgets_jobs_that_ended_long_ago(api: Api) -> None:
    old, waiting = add(api, backup(), backup())
    end(api, old)
    api.clock.move(timedelta(days=731))
    (late,) = add(api)
    end(api, late)
    (told,) = Steward(api.master)._forget_old_jobs(lambda: None)
    assert told.message == "1 jobs that ended before 2026-01-03 are forgotten"
    assert [one["id"] for one in api.client().pages("/jobs")] == [late, waiting]
    assert Steward(api.master)._forget_old_jobs(lambda: None) == []
