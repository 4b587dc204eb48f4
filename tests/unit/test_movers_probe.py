"""What is said to be in the way of a backup, before there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.errors import Invalid
from holdfast.movers import probe, survey
from holdfast.movers.mounts import Mount, mount_of, mounts
from holdfast.movers.probe import look
from holdfast.movers.reader import Reader, why_refused
from holdfast.wire.looking import LookOrder, LookReport, Trouble


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("a.txt", "b.tmp", "deep/c.txt", "deep/d.tmp", "deep/deeper/e.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    return root


def looked(*paths: Path | str, **others: object) -> LookReport:
    order = LookOrder(tuple(str(path) for path in paths), **others)  # type: ignore[arg-type]
    return look(order)


def only(report: LookReport) -> Trouble:
    (trouble,) = report.troubles
    return trouble


def test_what_can_be_read_is_counted(tree: Path) -> None:
    report = looked(tree, exclude=("*.tmp",))
    assert report.troubles == ()
    assert report.is_complete
    assert (report.names, report.left_out, report.size_bytes) == (5, 2, 15)
    assert f"uid {os.geteuid()}" in report.reader
    file = looked(tree / "a.txt", exclude=("*",))
    assert (file.names, file.size_bytes, file.troubles) == (1, 5, ())


def test_all_local_drives_are_looked_at() -> None:
    report = looked("ALL_LOCAL_DRIVES", most_names=50)
    assert report.names > 0
    assert not report.is_complete


def test_what_is_not_there_is_named_with_what_may_have_been_meant(tree: Path) -> None:
    trouble = only(looked(tree / "dep" / "deeper"))
    assert (trouble.severity, trouble.cause) == ("error", "missing")
    assert trouble.message.endswith(f"'{tree}' has no 'dep'")
    assert trouble.hint == f"did you mean '{tree / 'deep'}'?"
    assert trouble.about == str(tree / "dep" / "deeper")
    assert "is a file" in only(looked(tree / "a.txt" / "x")).message
    (tree / "dangling").symlink_to("nowhere")
    assert "leads nowhere" in only(looked(tree / "dangling" / "x")).message


def test_everything_left_out_is_an_error_and_nothing_there_a_warning(tree: Path) -> None:
    trouble = only(looked(tree, exclude=("*",)))
    assert (trouble.severity, trouble.cause) == ("error", "nothing-left")
    assert "3 names" in trouble.message
    empty = tree / "empty"
    empty.mkdir()
    assert (only(looked(empty)).severity, only(looked(empty)).cause) == ("warning", "empty")
    assert looked(tree, exclude=("*", "!a.txt")).troubles == ()


def test_a_mark_that_leaves_out_everything_is_named(tree: Path) -> None:
    (tree / ".nobackup").touch()
    report = looked(tree)
    assert (only(report).severity, only(report).cause) == ("error", "marked")
    assert ".nobackup" in only(report).message
    cache = tree / "deep"
    (cache / "CACHEDIR.TAG").write_bytes(survey.CACHE_SIGNATURE + b"\n# by a test")
    assert "CACHEDIR.TAG" in only(looked(cache)).message
    (cache / "CACHEDIR.TAG").write_bytes(b"something else")
    assert looked(cache).troubles == ()


def test_marked_directories_below_are_left_out_of_the_count(tree: Path) -> None:
    (tree / "deep" / ".nobackup").touch()
    report = looked(tree)
    assert (report.names, report.left_out) == (4, 3)


def test_a_link_is_told_to_be_backed_up_itself(tree: Path) -> None:
    link = tree / "link"
    link.symlink_to(tree / "deep")
    trouble = only(looked(link))
    assert (trouble.severity, trouble.cause) == ("warning", "symbolic-link")
    assert trouble.hint == f"name '{tree / 'deep'}'"


def test_what_only_shows_the_kernel_is_told() -> None:
    assert [one.cause for one in looked("/proc/sys/kernel", most_names=10).troubles] == [
        "kernel-only"
    ]


def test_programs_have_to_be_there_and_to_be_runnable(tree: Path) -> None:
    report = looked(
        tree, programs=("/bin/sh", "sh", "/bin/no-such", str(tree / "a.txt"), "no-such")
    )
    assert {one.about: one.cause for one in report.troubles} == {
        "/bin/no-such": "missing",
        str(tree / "a.txt"): "no-permission",
        "no-such": "no-permission",
    }


def test_the_look_ends_at_its_bounds(tree: Path) -> None:
    for number in range(600):
        (tree / f"many{number}").touch()
    report = looked(tree, most_names=300)
    assert not report.is_complete
    assert 256 <= report.names < 600
    order = LookOrder((str(tree),), within_s=5)
    ticking = iter(range(0, 10_000, 3))
    assert not look(order, now_s=lambda: next(ticking)).is_complete


def test_a_rule_that_is_none_is_refused(tree: Path) -> None:
    with pytest.raises(Invalid, match=r"a\{b"):
        looked(tree, exclude=("a{b",))


def test_a_file_system_that_does_not_answer_is_not_waited_for(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    real = os.lstat

    def lstat(path: bytes) -> os.stat_result:
        if path == os.fsencode(tree / "dead"):
            never.wait()
        return real(path)

    monkeypatch.setattr(os, "lstat", lstat)
    order = LookOrder((str(tree), str(tree / "dead")))
    report = look(order, answer_s=0.05)
    never.set()
    assert only(report).cause == "silent"
    assert str(mount_of(os.fsencode(tree), mounts())) in only(report).message
    assert report.names == 7
    assert not report.is_complete


def test_a_file_system_that_stops_answering_is_not_waited_for(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()

    def wait(*_: object) -> Iterator[None]:
        never.wait()
        return iter(())

    monkeypatch.setattr(probe, "survey", wait)
    report = look(LookOrder((str(tree),), within_s=0.01), answer_s=0.05)
    never.set()
    assert (report.names, report.is_complete, report.troubles) == (0, False, ())


WITHOUT_RIGHTS = """
import json, sys
from holdfast.movers.probe import look
from holdfast.wire.looking import LookOrder
print(json.dumps(look(LookOrder(tuple(sys.argv[1:]))).to_json()))
"""


def test_the_true_cause_of_a_refusal_is_named(tree: Path) -> None:
    (tree / "a.txt").chmod(0)
    (tree / "deep").chmod(0)
    paths = [str(tree / "deep" / "deeper"), str(tree / "a.txt"), str(tree)]
    # Root without its capabilities is an owner like others.
    prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*prefix, sys.executable, "-c", WITHOUT_RIGHTS, *paths],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    (tree / "deep").chmod(0o755)
    report = LookReport.from_json(json.loads(done.stdout))
    passing, reading, below = report.troubles
    assert passing.about == paths[0]
    assert f"may not pass through '{tree / 'deep'}'" in passing.message
    assert "without CAP_DAC_READ_SEARCH" in passing.message
    assert passing.message.endswith("'s, with mode 0000")
    assert "AmbientCapabilities" in (passing.hint or "")
    assert f"may not read '{tree / 'a.txt'}'" in reading.message
    assert (below.severity, below.about) == ("warning", None)
    assert below.message.startswith("2 of 3 names")


def test_who_has_every_right_is_told_what_stands_above_rights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    able = Reader(0, reads_all=True)
    listed = [
        Mount(b"/", "ext4", "/dev/sda1"),
        Mount(b"/mnt/nfs", "nfs4", "server:/export"),
        Mount(b"/mnt/ssh", "fuse.sshfs", "me@host:"),
    ]
    monkeypatch.setattr("holdfast.movers.reader.mounts", lambda: listed)
    assert "its server forbids it" in why_refused(b"/mnt/nfs/x", able)[0]
    assert "allow_other" in why_refused(b"/mnt/ssh", able)[1]
    assert "SELinux" in why_refused(b"/etc", able)[0]


def test_rights_are_read_from_the_kernel(tmp_path: Path) -> None:
    status = tmp_path / "status"
    for rights, reads_all in (("0", False), ("4", True), ("2", True), ("1ffffffffb", True)):
        status.write_text(f"Name:\tx\nCapEff:\t{rights:>016}\nSeccomp:\t0\n")
        assert Reader.of_this_process(status).reads_all is reads_all


def test_mounts_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    listed = tmp_path / "mountinfo"
    listed.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:5 / /a\\040b rw shared:1 - nfs4 host:/x\\040y rw\n"
        "3 1 0:6 / /a\\040b rw - xfs /dev/sdb rw\n"
    )
    found = mounts(listed)
    assert found[1] == Mount(b"/a b", "nfs4", "host:/x y")
    assert found[1].is_remote
    assert mount_of(b"/a b/c", found) == found[2]
    assert mount_of(b"/a", found) == found[0]
    assert mount_of(b"/a b", found[1:2]) == found[1]
    assert mount_of(b"/", []) is None


def test_a_report_passes_json_unchanged() -> None:
    order = LookOrder(("/etc",), ("*.tmp",), True, ("/bin/sh",))
    assert LookOrder.from_json(json.loads(json.dumps(order.to_json()))) == order
    report = LookReport("me", (Trouble("error", "missing", "gone", None, "/etc"),), 1, 2, 3, True)
    assert LookReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    with pytest.raises(Invalid, match="version 2"):
        LookOrder.from_json(order.to_json() | {"version": 2})
    plain = json.loads(json.dumps(report.to_json()))
    assert LookReport.from_json(plain | {"strange": 1}) == report
    assert LookOrder.from_json(order.to_json() | {"strange": 1}) == order
    plain["troubles"][0]["severity"] = "fatal"
    for wrong in (plain, {}, report.to_json() | {"names": -1}):
        with pytest.raises(Invalid):
            LookReport.from_json(wrong)
