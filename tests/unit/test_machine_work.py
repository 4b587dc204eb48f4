"""What work with virtual machines is told when it is given out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import MachineMissing, NotFound
from holdfast.base.ids import ClientName, ImageId, JobId, PoolId
from holdfast.control.jobs import BY_SITE, Job, JobKind
from holdfast.site.machine_work import complete
from holdfast.wire.machine_work import MachineRestoreWork, MachineWork, Reached
from holdfast.wire.messages import BackupWork, ImageNote
from tests.kit.virtual_machines import hypervisor, machine, uuid

if TYPE_CHECKING:
    from tests.kit.api import Api

KEY = b"k" * 32
SOURCE = f"machine:{uuid(1)}"
ELSEWHERE = PoolId("e" * 32)
WORK = MachineWork("web1", SOURCE, machine=uuid(1), name="web1", hypervisor="esx")


@pytest.fixture
def api(api: Api) -> Api:
    api.master.hypervisors.add(hypervisor(), {"user": "u", "password": "s3cret"}, KEY)
    api.master.hypervisors.found("esx", [machine("web1", 1)])
    return api


def job(api: Api, worker: str = BY_SITE, unit: str = "default") -> Job:
    return Job(
        id=JobId(7),
        kind=JobKind.BACKUP,
        priority=50,
        queued_at=api.clock.now(),
        storage_unit=unit,
        worker=ClientName(worker),
    )


def done(api: Api, work: MachineWork = WORK, of: Job | None = None) -> MachineWork:
    made = complete(api.master, of or job(api), work)
    assert isinstance(made, MachineWork)
    return made


def put_image(api: Api, number: int, pool: PoolId | None = None) -> ImageId:
    id_, when = f"{number:032x}", 10**18 + number
    note = ImageNote(id_, number, SOURCE, "web1", when, when, None, "completed", {}, 0, "x", {})
    api.master.catalog.record_image(note, pool or api.master.site.pool_id)
    return ImageId(id_)


def test_how_the_hypervisor_is_reached_is_added_with_its_credentials(api: Api) -> None:
    made = done(api)
    credentials = {"user": "u", "password": "s3cret"}
    assert made.reached == Reached("esx", "libvirt", "qemu:///system", credentials)
    assert (made.proxy, made.parent) == (None, None)
    assert done(api, of=job(api, "proxy1")).proxy == "proxy1"
    files = BackupWork("web1", "web1:/srv", ("/srv",))
    assert complete(api.master, job(api), files) is files


def test_a_backup_follows_the_newest_image_of_its_storage_unit(api: Api) -> None:
    put_image(api, 1)
    newest = put_image(api, 2)
    assert done(api).parent == newest
    assert done(api, replace(WORK, read_all=True)).parent is None
    put_image(api, 3, ELSEWHERE)
    assert done(api).parent == newest


def test_a_machine_is_done_where_it_is_now_under_the_name_that_it_has_now(api: Api) -> None:
    api.master.hypervisors.add(hypervisor("kvm", url="qemu+tls://kvm/system"), {}, KEY)
    api.master.hypervisors.found("esx", [])
    api.master.hypervisors.found("kvm", [machine("web one", 1)])
    made = done(api)
    assert (made.hypervisor, made.name, made.client) == ("kvm", "web one", "web1")
    assert made.reached is not None
    assert (made.reached.url, made.reached.credentials) == ("qemu+tls://kvm/system", {})


def test_a_machine_that_is_nowhere_any_more_is_told(api: Api) -> None:
    api.master.hypervisors.found("esx", [])
    with pytest.raises(MachineMissing, match=r"'web1' .* is on no hypervisor any more"):
        done(api)


def test_a_restore_is_told_how_its_hypervisor_is_reached(api: Api) -> None:
    work = MachineRestoreWork("ab" * 16, hypervisor="esx")
    made = complete(api.master, job(api, "proxy1"), work)
    assert isinstance(made, MachineRestoreWork)
    assert made.reached is not None
    assert (made.reached.hypervisor, made.proxy) == ("esx", "proxy1")
    files = MachineRestoreWork("ab" * 16, to_dir="/srv", proxy="web1")
    assert complete(api.master, job(api, "web1"), files) is files
    with pytest.raises(NotFound):
        complete(api.master, job(api), replace(work, hypervisor="gone"))
