"""Backups by hand, and restores, through the API: what becomes of the paths that are named."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import TYPE_CHECKING, cast

import pytest

from holdfast.base import errors
from holdfast.base.ids import JobId
from holdfast.control.access import Role, Scope
from holdfast.site.probing import this_client
from holdfast.wire.messages import BackupWork, RestoreWork, work_from_json

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.api import Api
    from tests.kit.fake_pool import FakePool

ODD = b"odd \xff\xfe"


def work_of(api: Api, job: int) -> object:
    return work_from_json(api.master.jobs.work(JobId(job)))


def test_paths_are_queued_as_the_command_would_back_them_up(
    api_on_both: Api, tmp_path: Path
) -> None:
    api = api_on_both
    (tmp_path / "a" / "inside").mkdir(parents=True)
    odd = os.fsencode(tmp_path) + b"/" + ODD
    os.mkdir(odd)
    body = {
        "paths": [f"{tmp_path}/a/", f"{tmp_path}/a/inside"],
        "paths_base64": [b64encode(odd).decode()],
        "exclude": ["*.tmp"],
        "full": True,
        "compression": 5,
    }
    queued = api.client(api.token(Role.OPERATOR)).post("/backups", body)["job"]
    work = work_of(api, queued)
    assert isinstance(work, BackupWork)
    assert [os.fsencode(path) for path in work.paths] == [os.fsencode(tmp_path / "a"), odd]
    client = this_client()
    assert (work.client, work.read_all, work.compression) == (client, True, 5)
    assert work.source == f"{client}:{tmp_path}/a,{tmp_path}/odd \\xff\\xfe"
    assert (work.exclude, work.labels) == (("*.tmp",), {"policy": "adhoc", "kind": "full"})
    job = api.master.jobs.job(JobId(queued))
    assert (job.policy, job.client, job.source, job.due_at) == ("adhoc", client, work.source, None)
    assert (job.backup_kind, job.storage_unit) == ("full", "default")
    assert api.audited()[-1].entry.what == "back_up"


def test_what_can_not_be_backed_up_is_refused_at_once(api: Api, tmp_path: Path) -> None:
    client = api.client()
    with pytest.raises(errors.PathMissing, match="there is no"):
        client.post("/backups", {"paths": [str(tmp_path / "none")]})
    for body in (
        {},
        {"paths": ["relative"]},
        {"paths": ["/"], "compression": 20},
        {"paths_base64": ["AA"]},
        {"paths_base64": [b64encode(b"relative").decode()]},
    ):
        with pytest.raises(errors.Invalid):
            client.post("/backups", body)
    with pytest.raises(errors.PathMissing, match="nothing at"):
        client.post("/backups", {"paths_base64": [b64encode(b"/a\0b").decode()]})
    assert api.master.jobs.count() == 0


def test_only_who_may_see_this_machine_has_it_backed_up(api: Api, tmp_path: Path) -> None:
    other = api.client(api.token(Role.OPERATOR, Scope(("not-this-*",)), "other"))
    with pytest.raises(errors.Forbidden):
        other.post("/backups", {"paths": [str(tmp_path)]})
    own = api.client(api.token(Role.OPERATOR, Scope((this_client(),)), "own"))
    job = own.post("/backups", {"paths": [str(tmp_path)]})["job"]
    assert own.get(f"/jobs/{job}")["kind"] == "backup"


def test_a_restore_takes_paths_whatever_they_are_made_of(api: Api) -> None:
    pool = cast("FakePool", api.master.site.pool)
    image = pool.backup({}, "web1:/srv")
    api.master.catalog.record_image(image, pool.pool_id)
    odd = b"/srv/" + ODD
    body = {"target": "/back", "paths": ["/srv/é"], "paths_base64": [b64encode(odd).decode()]}
    work = work_of(api, api.client().post(f"/images/{image.id}/restores", body)["job"])
    assert isinstance(work, RestoreWork)
    assert [os.fsencode(path) for path in work.paths] == ["/srv/é".encode(), odd]


def test_only_who_may_see_this_machine_restores_to_it(api: Api) -> None:
    """Who may restore one client's images could else write anything on the master's machine."""
    pool = cast("FakePool", api.master.site.pool)
    image = pool.backup({}, "web1:/srv")
    api.master.catalog.record_image(image, pool.pool_id)
    path, body = f"/images/{image.id}/restores", {"target": "/back"}
    other = api.client(api.token(Role.RESTORE_OPERATOR, Scope(("web1",)), "other"))
    with pytest.raises(errors.Forbidden):
        other.post(path, body)
    both = api.client(api.token(Role.RESTORE_OPERATOR, Scope((this_client(), "web1")), "both"))
    assert both.get(f"/jobs/{both.post(path, body)['job']}")["kind"] == "restore"


def test_who_may_see_one_client_restores_its_image_to_no_other(api: Api) -> None:
    pool = cast("FakePool", api.master.site.pool)
    image = pool.backup({}, "web1:/srv")
    api.master.catalog.record_image(image, pool.pool_id)
    path, body = f"/images/{image.id}/restores", {"target": "/back", "client": "web2"}
    for scope in (("web1",), ("web2",)):
        one = api.client(api.token(Role.RESTORE_OPERATOR, Scope(scope), scope[0]))
        with pytest.raises((errors.Forbidden, errors.NotFound)) as refused:
            one.post(path, body)
        # Who may not see the image is not told that there is one.
        assert isinstance(refused.value, errors.NotFound) == (scope == ("web2",))
    assert api.master.jobs.count() == 0
    both = api.client(api.token(Role.RESTORE_OPERATOR, Scope(("web1", "web2")), "both"))
    with pytest.raises(errors.NotFound, match="no machine 'web2' has joined"):
        both.post(path, body)
