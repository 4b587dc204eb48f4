"""``hypervisor``, ``machines``, ``policy`` and ``restore-machine``, in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import Unreachable
from holdfast.faces.cli import opening
from holdfast.faces.cli.main import run
from holdfast.movers.machines import asking
from holdfast.sources.machines.provider import Remark
from holdfast.wire.messages import ImageNote
from tests.kit.virtual_machines import FakeHypervisor, machine, uuid

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "s3cret"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    assert run(["init", "--pool", str(tmp_path / "pool")]) == 0
    return tmp_path / "home"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHypervisor:
    made = FakeHypervisor([machine("web1", 1), machine("db1", 2, tags=("test",))])
    monkeypatch.setattr(asking, "open_provider", made.opener)
    return made


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    ended = run(words)
    out, err = capsys.readouterr()
    assert ended == status, err
    return out, err


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(capsys, *words, "--json")[0].splitlines()]


def add(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    words = ("hypervisor", "add", "esx", "--kind", "libvirt", "--at", "qemu:///system")
    return said(capsys, *words, *more)


def test_a_hypervisor_is_added_shown_changed_and_removed(
    capsys: pytest.CaptureFixture[str], fake: FakeHypervisor, tmp_path: Path
) -> None:
    _, err = said(capsys, "hypervisor")
    assert "no hypervisor is known yet" in err
    _, err = said(capsys, "machines")
    assert "no hypervisor is known yet" in err
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    out, _ = add(capsys, "--user", "backup", "--password-file", str(tmp_path / "password"))
    assert out == "hypervisor 'esx' is known: 2 virtual machines\n"
    assert (fake.opened[0][2].user, fake.opened[0][2].password) == ("backup", PASSWORD)
    out, _ = said(capsys, "hypervisor", "show", "esx")
    assert "kept, sealed" in out
    assert PASSWORD not in out
    assert "esx" in said(capsys, "hypervisor", "list")[0]
    out, _ = said(capsys, "hypervisor", "set", "esx", "--per-host", "7", "--no-credentials")
    assert out == "hypervisor 'esx' is changed: 2 virtual machines\n"
    (row,) = rows(capsys, "hypervisor", "list")
    assert (row["per_host"], row["has_credentials"]) == (7, False)
    words = ("hypervisor", "add", "a/b", "--kind", "libvirt", "--at", "qemu:///system")
    _, err = said(capsys, *words, status=64)
    assert "'a/b' can't be the name of a hypervisor" in err
    _, err = said(capsys, "hypervisor", "set", "esx", status=64)
    assert "nothing is to be changed" in err
    _, err = said(capsys, "hypervisor", "set", "esx", "--proxy", "p1", status=2)
    assert "no machine 'p1' with an agent" in err
    _, err = said(capsys, "hypervisor", "remove", "esx")
    assert "images of its machines stay" in err


def test_machines_are_listed_and_one_is_shown(
    capsys: pytest.CaptureFixture[str], fake: FakeHypervisor
) -> None:
    add(capsys)
    out, _ = said(capsys, "machines")
    lines = out.splitlines()
    assert lines[0].split() == [
        *("machine", "state", "host", "size", "guest", "policies", "last", "backup")
    ]
    assert [line.split()[0] for line in lines[1:]] == ["db1", "web1"]
    assert [one["name"] for one in rows(capsys, "machines", "--where", "tag=test")] == ["db1"]
    out, err = said(capsys, "machines", "show", "web1")
    assert uuid(1) in out
    assert "no active policy selects it" in err
    _, err = said(capsys, "machines", "--where", "tag=", status=64)
    assert "at character 5" in err
    assert "no virtual machine is so" in said(capsys, "machines", "--where", "zzz")[1]


def test_who_does_not_answer_ends_no_list(
    capsys: pytest.CaptureFixture[str], fake: FakeHypervisor
) -> None:
    add(capsys)
    fake.has.append(machine("mail", 3))
    names = [one["name"] for one in rows(capsys, "machines", "--refresh")]
    assert names == ["db1", "mail", "web1"]
    fake.error = Unreachable("nobody answers")
    out, err = said(capsys, "machines", "--refresh")
    assert len(out.splitlines()) == 4
    assert "hypervisor 'esx': nobody answers; known is what it had" in err
    _, err = said(capsys, "hypervisor", "discover", status=2)
    assert "nobody answers" in err


def test_one_that_does_not_answer_yet_is_known_all_the_same(
    capsys: pytest.CaptureFixture[str], fake: FakeHypervisor
) -> None:
    fake.error = Unreachable("nobody answers")
    words = ("hypervisor", "add", "esx", "--kind", "libvirt", "--at", "qemu:///system")
    _, err = said(capsys, *words, status=2)
    assert "nobody answers" in err
    assert "is known, and did not tell its machines: 'holdfast hypervisor discover esx'" in err
    fake.error = None
    assert "2 virtual machines" in said(capsys, "hypervisor", "discover", "esx")[0]


def test_a_policy_is_made_looked_at_and_run(
    capsys: pytest.CaptureFixture[str], fake: FakeHypervisor
) -> None:
    add(capsys)
    fake.remarks = [Remark("warning", "no-agent", "no guest agent answers")]
    _, err = said(capsys, "policy", "new", "prod", "--machines", "tag=prod", "--yes")
    assert "machine 'web1': no guest agent answers" in err
    out, _ = said(capsys, "policy", "show", "prod")
    assert "virtual machines with tag=prod" in out
    assert "clients now" in out
    assert "web1" in out
    assert [one["name"] for one in rows(capsys, "machines", "--unprotected")] == ["db1"]
    exported, _ = said(capsys, "policy", "export", "prod")
    assert 'query = "tag=prod"' in exported
    assert "clients" not in exported
    out, _ = said(capsys, "policy", "run", "prod")
    (job,) = [one for one in rows(capsys, "jobs", "list") if one["client"] == "web1"]
    assert job["source"] == f"machine:{uuid(1)}"
    assert "web1" in said(capsys, "policy", "preview", "prod")[0]
    _, err = said(capsys, "policy", "new", "x", "--machines", "tag=", "--yes", status=64)
    assert "at character 5" in err


def test_a_restore_says_where_to(capsys: pytest.CaptureFixture[str], fake: FakeHypervisor) -> None:
    add(capsys)
    for words, why in (
        ((), "to a hypervisor, or to a directory"),
        (("--to", "esx", "--to-dir", "/srv"), "to a hypervisor, or to a directory"),
        (("--to", "esx", "--network", "a", "--no-network"), "contradict each other"),
        (("--to", "esx", "--restart", "--discard"), "contradict each other"),
    ):
        _, err = said(capsys, "restore-machine", "latest", *words, status=64)
        assert why in err
    _, err = said(capsys, "restore-machine", "latest:/etc", "--to", "esx", status=64)
    assert "restored whole" in err
    _, err = said(capsys, "restore-machine", "latest", "--to", "esx", status=2)
    assert "image" in err


def test_a_format_that_a_hypervisor_can_not_have_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], fake: FakeHypervisor
) -> None:
    add(capsys)
    said(capsys, "hypervisor", "add", "vc", "--kind", "vmware", "--at", "https://vc.example.org")
    note = ImageNote("ab" * 16, 1, f"machine:{uuid(1)}", "web1", 1, 1, None, "", {}, 0, "x", {})
    with opening.open_site() as site:
        site.catalog.record_image(note, site.pool_id)
    for where, refused, use in (("vc", "raw", "vmdk"), ("esx", "vhdx", "qcow2 or")):
        words = ("latest", "--to", where, "--new-identity", "--name", "web9", "--format", refused)
        out, err = said(capsys, "restore-machine", *words, status=64)
        assert not out
        assert f"can't have disks of the format '{refused}'" in err
        assert f"hint: use {use}" in err
    assert rows(capsys, "jobs", "list") == []
