"""Virtual machines made of images: what is refused before anybody begins, and the job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest

from holdfast.base.errors import (
    AlreadyExists,
    Forbidden,
    ImageMissing,
    Invalid,
    NotFound,
    UsageError,
    WrongState,
)
from holdfast.base.ids import JobId
from holdfast.control.access import Role, Scope
from holdfast.control.jobs import BY_SITE, JobKind, Sort, Wanted
from holdfast.control.machines import Standing
from holdfast.faces.api.machine_restores import NewMachineRestore
from holdfast.faces.cli import restore_machine
from holdfast.site import machine_work
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.providers import KINDS
from holdfast.wire.machine_work import MachineRestoreWork
from holdfast.wire.messages import ImageNote, work_from_json
from tests.kit.virtual_machines import hypervisor, machine, uuid

if TYPE_CHECKING:
    from tests.kit.api import Api

IMAGE, FILES = "ab" * 16, "cd" * 16
URL = f"/images/{IMAGE}/machine-restores"
KEY = b"k" * 32


@pytest.fixture
def api(api: Api) -> Api:
    """Two hypervisors, an image of the machine that runs on one of them, and one of files."""
    book = api.master.hypervisors
    book.add(hypervisor("kvm1"), {"user": "u", "password": "s3cret"}, KEY)
    book.add(hypervisor("kvm2"), {}, KEY)
    book.found("kvm1", [machine("web1", 1, host="kvm1")])
    book.found("kvm2", [machine("mail", 2, host="kvm2")])
    for id_, source in ((IMAGE, f"machine:{uuid(1)}"), (FILES, "web1:/srv")):
        when = 10**18
        note = ImageNote(id_, 1, source, "web1", when, when, None, "completed", {}, 0, "x", {})
        api.master.catalog.record_image(note, api.master.site.pool_id)
    return api


def work_of(api: Api, queued: dict[str, Any]) -> MachineRestoreWork:
    work = work_from_json(api.master.jobs.work(JobId(queued["job"])))
    assert isinstance(work, MachineRestoreWork)
    return work


def test_a_restore_is_a_job_of_who_reaches_the_hypervisor(api: Api) -> None:
    body = {
        "hypervisor": "kvm2",
        "name": "web9",
        "keep_identity": False,
        "networks": [],
        "start": True,
    }
    queued = api.client().post(URL, body)
    work = work_of(api, queued)
    assert (work.hypervisor, work.name, work.networks, work.start) == ("kvm2", "web9", (), True)
    assert (work.keep_identity, work.format, work.to_dir, work.reached) == (
        False,
        "qcow2",
        None,
        None,
    )
    job = api.master.jobs.job(JobId(queued["job"]))
    assert (job.kind, job.client, job.worker) == (JobKind.RESTORE, "web1", BY_SITE)
    # How it is reached is said when it is given out, and not before.
    done = machine_work.complete(api.master, job, work)
    assert isinstance(done, MachineRestoreWork)
    assert done.reached is not None
    assert (done.reached.url, done.proxy) == ("qemu:///system", None)


def test_files_go_to_a_directory(api: Api) -> None:
    work = work_of(api, api.client().post(URL, {"to_dir": "/srv/back", "disks": ["vda"]}))
    assert (work.to_dir, work.format, work.disks, work.hypervisor) == (
        "/srv/back",
        "raw",
        ("vda",),
        None,
    )


def test_an_original_that_runs_is_not_doubled_unless_told(api: Api) -> None:
    client = api.client()
    with pytest.raises(WrongState, match="'web1' is running on 'kvm1' of hypervisor 'kvm1'"):
        client.post(URL, {"hypervisor": "kvm2"})
    told = client.post(URL, {"hypervisor": "kvm2", "beside_original": True})
    assert work_of(api, told).keep_identity
    api.master.hypervisors.found("kvm1", [machine("web1", 1, host="kvm1", state=State.OFF)])
    assert work_of(api, client.post(URL, {"hypervisor": "kvm2"})).keep_identity


def test_a_name_or_uuid_that_is_there_is_refused(api: Api) -> None:
    client = api.client()
    with pytest.raises(AlreadyExists, match="has a machine 'web1' already"):
        client.post(URL, {"hypervisor": "kvm1"})
    with pytest.raises(AlreadyExists, match="has the machine of this uuid: 'web1', running"):
        client.post(URL, {"hypervisor": "kvm1", "name": "other", "beside_original": True})
    with pytest.raises(AlreadyExists, match="has a machine 'mail' already"):
        client.post(URL, {"hypervisor": "kvm2", "name": "mail", "keep_identity": False})
    api.master.hypervisors.found("kvm1", [])
    assert work_of(api, client.post(URL, {"hypervisor": "kvm1"})).name is None


def test_what_makes_no_sense_is_refused(api: Api) -> None:
    client = api.client()
    for body in ({}, {"hypervisor": "kvm1", "to_dir": "/srv"}):
        with pytest.raises(Invalid, match="to a hypervisor, or to a directory"):
            client.post(URL, body)
    with pytest.raises(Invalid, match="is of files"):
        client.post(f"/images/{FILES}/machine-restores", {"to_dir": "/srv"})
    useless: list[dict[str, Any]] = [{"start": True}, {"storage": "fast"}, {"networks": []}]
    for more in useless:
        with pytest.raises(Invalid, match="have no use for"):
            client.post(URL, {"to_dir": "/srv", **more})
    with pytest.raises(Invalid, match="own proxy"):
        client.post(URL, {"hypervisor": "kvm2", "client": "web1"})
    with pytest.raises(NotFound, match="no hypervisor 'kvm3'"):
        client.post(URL, {"hypervisor": "kvm3"})
    with pytest.raises(NotFound, match="no machine 'web8' has joined"):
        client.post(URL, {"to_dir": "/srv", "client": "web8"})
    with pytest.raises(UsageError):
        client.post(URL, {"to_dir": "srv"})


def test_a_format_that_the_target_can_not_have_is_refused_before_there_is_a_job(api: Api) -> None:
    book = api.master.hypervisors
    book.add(hypervisor("esx", kind="vmware", url="https://esx.example.org"), {}, KEY)
    book.add(hypervisor("shelf", kind="diskfiles", url="/srv/machines"), {}, KEY)
    new: dict[str, Any] = {"name": "web9", "keep_identity": False}
    for name, kind, refused in (("esx", "vmware", "raw"), ("kvm2", "libvirt", "vhdx")):
        body = new | {"hypervisor": name, "format": refused}
        answer = api.http(api.token(Role.ADMINISTRATOR)).post(f"/api/v1{URL}", json=body)
        assert answer.status_code == 422
        told = answer.json()
        assert f"can't have disks of the format '{refused}'" in told["detail"]
        assert told["hint"].startswith(f"use {' or '.join(KINDS[kind].disk_formats)}, or say none")
    assert not list(api.master.jobs.page(Wanted(), Sort("id")))
    for name, usual, other in (("esx", "vmdk", "vmdk"), ("kvm2", "qcow2", "raw")):
        for given, made in ((None, usual), (other, other)):
            body = new | {"hypervisor": name, "format": given}
            assert work_of(api, api.client().post(URL, body)).format == made
    for given in ("qcow2", "raw", "vmdk", "vhdx", "vdi"):
        for where in (new | {"hypervisor": "shelf"}, {"to_dir": "/srv/back"}):
            queued = api.client().post(URL, where | {"format": given})
            assert work_of(api, queued).format == given


def test_the_document_says_which_format_a_target_takes(api: Api) -> None:
    schema = api.app.openapi()["components"]["schemas"]["NewMachineRestore"]
    told = schema["properties"]["format"]["description"]
    for kind in KINDS.values():
        assert f"`{kind.name}`: `{'`, `'.join(kind.disk_formats)}`" in told
    assert "`raw` in a directory" in told
    offered = get_args(get_args(NewMachineRestore.model_fields["format"].annotation)[0])
    assert set(offered) == {one for kind in KINDS.values() for one in kind.disk_formats}
    assert set(offered) == set(restore_machine.FORMATS)


def test_who_is_bounded_restores_to_what_is_theirs(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = api.client(api.token(Role.RESTORE_OPERATOR, Scope.of(["web*"])))
    new = {"hypervisor": "kvm2", "keep_identity": False}
    assert work_of(api, bounded.post(URL, {**new, "name": "web2"})).name == "web2"
    with pytest.raises(Forbidden, match="'db1'"):
        bounded.post(URL, {**new, "name": "db1"})
    with pytest.raises(Forbidden):
        bounded.post(URL, {"to_dir": "/srv"})
    agents = frozenset({"web1"})
    standing = Standing({}, agents, {})  # type: ignore[arg-type]
    monkeypatch.setattr(api.master.machines, "standing", lambda: standing)
    queued = bounded.post(URL, {"to_dir": "/srv", "client": "web1"})
    assert work_of(api, queued).proxy == "web1"
    assert api.master.jobs.job(JobId(queued["job"])).worker == "web1"
    other = api.client(api.token(Role.RESTORE_OPERATOR, Scope.of(["db*"]), "other"))
    with pytest.raises(ImageMissing):
        other.post(URL, {"to_dir": "/srv"})


def test_what_becomes_of_an_unfinished_restore_is_said_to_the_worker(api: Api) -> None:
    body = {"hypervisor": "kvm2", "name": "web9", "keep_identity": False}
    usual = work_of(api, api.client().post(URL, body))
    assert usual.unfinished == "continue"
    # A worker that knows nothing of it does what it always did.
    assert "unfinished" not in usual.to_json()
    anew = work_of(api, api.client().post(URL, body | {"unfinished": "restart"}))
    assert anew.unfinished == "restart"
    # Nothing is made, so nothing is in the way: not the machine of that name, nor one that runs.
    body = {"hypervisor": "kvm1", "unfinished": "discard"}
    assert work_of(api, api.client().post(URL, body)).unfinished == "discard"
    with pytest.raises(UsageError):
        api.client().post(URL, body | {"unfinished": "perhaps"})
