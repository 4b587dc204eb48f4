"""What a command does to a site itself is in the audit log, as the API would have told it."""

from __future__ import annotations

import errno
import inspect
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import click
import pytest

from holdfast.base import errors
from holdfast.control.access import AuditLog
from holdfast.control.act_notes import ActNotes, Draft
from holdfast.control.catalog import Catalog
from holdfast.control.jobs import JobBook, JobKind, Wanted
from holdfast.faces.cli import opening
from holdfast.faces.cli.acts import ACTS
from holdfast.faces.cli.api_client import open_api
from holdfast.faces.cli.commands import holdfast
from holdfast.faces.cli.main import run
from tests.unit.test_api_and_commands import commands
from tests.unit.test_api_and_commands import told as page_of_commands

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from holdfast.base.ids import ImageId
    from tests.kit.api import Api

ME = f"local:{pwd.getpwuid(os.geteuid()).pw_name}"
LATER = {"job", "image", "ended_ns", "exit_status"}
"""What only one of both ways has: the API its job, a command when it ended."""

WITHOUT_ROUTE = {"init", "recover", "quickstart", "mount", "verify-boot", "pool recovery-kit"}
"""Acts of commands for which the API has no act."""

NO_ACTS = {
    *("images", "ls", "find", "diff", "pool stats", "retention preview"),
    # these have the API do what they are for
    *("replicate", "restore-machine"),
    *(f"instant {one}" for one in ("begin", "list", "show", "migrate", "resume", "discard")),
    # these do something to the machine, and look whether there is a site
    *("service install", "service uninstall", "media run"),
}
"""Commands that look into the site themselves, and do nothing to it."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HOLDFAST_URL", raising=False)
    monkeypatch.delenv("HOLDFAST_TOKEN", raising=False)
    monkeypatch.setattr(opening, "_begun", [])
    assert run(["init"]) == 0
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    return tmp_path / "home"


def rows() -> list[Any]:
    """The audit log as it is, with what was noted, oldest first."""
    with opening.open_site() as site:
        _ = site.catalog
        return AuditLog(site.database, site.clock).rows(limit=1000, newest_first=False)


def heard() -> list[tuple[str, str, str]]:
    """What, about what, and how it ended: of everything but the making of the site."""
    return [(one.entry.what, one.entry.about, one.entry.outcome) for one in rows()][1:]


def backed_up(tmp_path: Path, times: int = 1) -> list[ImageId]:
    for number in range(times):
        (tmp_path / "tree" / f"{number}").write_text(str(number))
        assert run(["backup", str(tmp_path / "tree"), "--json"]) == 0
    with opening.open_site() as site:
        return [one.id for one in site.catalog.images()]


# -- the table --------------------------------------------------------------------------------


def callbacks() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for name in commands(holdfast, click.Context(holdfast)):
        command: click.Command | None = holdfast
        for word in name.split():
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), word)
        assert command is not None
        assert command.callback is not None
        found[name] = command.callback
    return found


def test_a_command_whose_module_opens_the_site_is_an_act_or_is_told_to_be_none() -> None:
    opens = re.compile(r"open_site\(|Site\.(open|create|join)\(|whole_id\(")
    modules = {name: inspect.getsource(inspect.getmodule(one)) for name, one in callbacks().items()}  # type: ignore[arg-type]
    assert {name for name, text in modules.items() if opens.search(text)} == ACTS.keys() | NO_ACTS
    assert not ACTS.keys() & NO_ACTS


def test_an_act_has_the_name_of_its_route(api: Api) -> None:
    document = api.app.openapi()["paths"]
    routes, reasons = page_of_commands()
    for name, act in ACTS.items():
        does = re.findall(r"`(POST|PUT|PATCH|DELETE) (/[^` ]*)`", routes.get(name, ""))
        named = {document[f"/api/v1{path}"][method.lower()]["operationId"] for method, path in does}
        words = {"images": ("a",), "paths": ("/a",), "image": "a", "to": "/a", "reason": "r"}
        given = {**words, "until": "2030-01-01", "pool": "/p", "directory": "/d"}
        found = {one.what for images in (["a"], ["a", "b"]) for one in act.tried(given, images)}
        if name in WITHOUT_ROUTE:
            assert not named, name
            operations = {one["operationId"] for ways in document.values() for one in ways.values()}
            assert not found & operations
        else:
            assert found == named, name
    assert WITHOUT_ROUTE - {"verify-boot"} <= reasons.keys()


# -- the acts themselves ----------------------------------------------------------------------

CASES: list[tuple[str, str, str, dict[str, Any] | None]] = [
    # what is said; then what the API is asked for, with {image} and the like in it
    ("backup {tree} --full --exclude *.tmp", "POST", "/backups",
     {"paths": ["{tree}"], "exclude": ["*.tmp"], "full": True}),
    ("restore {image} {tree}/file --to {back} --overwrite always --verify", "POST",
     "/images/{image}/restores",
     {"target": "{back}", "paths": ["{tree}/file"], "overwrite": "always", "verify": True}),
    ("verify", "POST", "/pool/verifications", {}),
    ("verify {image} --read-data", "POST", "/pool/verifications",
     {"images": ["{image}"], "read_data": True}),
    ("gc --dry-run", "POST", "/pool/collections", {"dry_run": True}),
    ("gc", "POST", "/pool/collections", None),
    ("pool check --read-data", "POST", "/pool/checks", {"read_data": True}),
    ("pool rebuild-index", "POST", "/pool/index", None),
    ("catalog update", "POST", "/catalog/updates", None),
    ("catalog protect", "POST", "/catalog/protection", None),
    ("catalog rebuild", "POST", "/catalog/rebuilds", None),
    ("hold {image} --reason case", "POST", "/images/{third}/holds", {"reason": "case"}),
    ("unhold {image} --reason case", "DELETE", "/images/{third}/holds?reason=case", None),
    ("lock {image} --until 2090-01-31T00:00:00Z", "PUT", "/images/{image}/lock",
     {"until": "2090-01-31T00:00:00Z"}),
    ("retention apply --last 9 --within 7d --yes --source {source}", "POST",
     "/retention/applications",
     {"rules": {"last": 9, "within_s": 604800}, "source": "{source}"}),
    # refused
    ("unhold {image} --reason case", "DELETE", "/images/{image}/holds?reason=case", None),
    ("expire {image}", "DELETE", "/images/{image}", None),
    ("expire {image} {other}", "POST", "/expirations", {"images": ["{image}", "{other}"]}),
    ("lock {other} --until 2001-01-31T00:00:00Z", "PUT", "/images/{other}/lock",
     {"until": "2001-01-31T00:00:00Z"}),
    ("retention apply --last 1 --source no:/where --yes", "POST", "/retention/applications",
     {"rules": {"last": 1}, "source": "no:/where"}),
    ("backup /is/not/there", "POST", "/backups", {"paths": ["/is/not/there"]}),
    # done for good
    ("expire {other}", "DELETE", "/images/{third}", None),
]  # fmt: skip


def test_each_act_of_a_command_is_told_as_the_api_tells_it(home: Path, tmp_path: Path) -> None:
    image, other, third = backed_up(tmp_path, 3)
    source = f"{os.uname().nodename}:{tmp_path / 'tree'}"
    names = {
        "image": image,
        "other": other,
        "third": third,
        "source": source,
        "tree": str(tmp_path / "tree"),
        "back": str(tmp_path / "back"),
    }

    def filled(value: Any) -> Any:
        return json.loads(_fill(json.dumps(value), names))

    def last() -> dict[str, Any]:
        one = rows()[-1].entry
        text = re.sub(f"{image}|{other}|{third}", "ID", json.dumps([one.about, one.details]))
        about, told = json.loads(text)
        details = {name: value for name, value in json.loads(told).items() if name not in LATER}
        return {"what": one.what, "about": about, "outcome": one.outcome, "details": details}

    def ask(client: httpx.Client, method: str, path: str, body: Any) -> None:
        content = {} if body is None else {"json": filled(body)}
        client.request(method, f"/api/v1{_fill(path, names)}", **content)

    with open_api() as api:
        for words, method, path, body in CASES:
            before = len(rows())
            run([_fill(word, names) for word in words.split()])
            by_command = last()
            assert len(rows()) == before + 1, words
            ask(api._client, method, path, body)
            assert len(rows()) == before + 2, words
            by_api = last()
            for row in (by_command, by_api):
                if row["outcome"] == "refused":
                    # A command names things as they were named to it.
                    row["details"].pop("message", None)
            assert by_command == by_api, words
    assert {one.entry.who for one in rows()} == {ME}


def _fill(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


def test_the_making_of_a_site_is_its_first_act(home: Path, tmp_path: Path) -> None:
    backed_up(tmp_path)
    (first, *_) = rows()
    assert (first.entry.what, first.entry.about, first.entry.outcome) == (
        "create_site",
        "site",
        "done",
    )
    assert run(["init", "--pool", str(tmp_path / "other")]) == errors.EXIT_FAILED
    assert heard()[-1] == ("create_site", "site", "refused")
    assert not list((home / "acts").iterdir())


def test_images_before_the_one_that_failed_were_done_and_those_after_it_not_begun(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = backed_up(tmp_path, 3)
    hold = Catalog.hold

    def stubborn(catalog: Catalog, image: ImageId, reason: str) -> None:
        if image == b:
            raise errors.CatalogError("no room")
        hold(catalog, image, reason)

    monkeypatch.setattr(Catalog, "hold", stubborn)
    assert run(["hold", a, b, c, "--reason", "case"]) == errors.EXIT_FAILED
    assert heard()[3:] == [
        ("hold_image", f"images/{a}/holds", "done"),
        ("hold_image", f"images/{b}/holds", "failed"),
    ]


def test_what_is_named_wrongly_is_refused_as_it_was_named(home: Path, tmp_path: Path) -> None:
    backed_up(tmp_path)
    assert run(["expire", "latest", "beef"]) == errors.EXIT_FAILED
    assert run(["hold", "beef", "--reason", " "]) == errors.EXIT_USAGE
    assert heard()[1:] == [
        ("expire_images", "expirations", "refused"),
        ("hold_image", "images/beef/holds", "refused"),
    ]
    assert json.loads(rows()[-2].entry.details)["body"] == {"images": ["latest", "beef"]}


def test_a_backup_is_told_with_its_job_and_its_image(home: Path, tmp_path: Path) -> None:
    (image,) = backed_up(tmp_path)
    details = json.loads(rows()[-1].entry.details)
    assert (details["image"], details["job"]) == (image, 1)
    assert details["ended_ns"]


def test_what_only_looks_leaves_nothing(home: Path, tmp_path: Path) -> None:
    backed_up(tmp_path)
    before = len(rows())
    for words in ("images", "ls latest:/", "find file", "pool stats", "retention preview --last 1"):
        run(words.split())
    assert run(["backup", "--help"]) == 0
    assert run(["backup"]) == errors.EXIT_USAGE
    assert len(rows()) == before


# -- where it can't be noted ------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes it so that no note can be written from then on."""

    def full(_draft: Draft, _note: object, *, durable: bool) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "acts")

    return lambda: monkeypatch.setattr(Draft, "write", full)


def test_what_is_kept_is_not_changed_where_that_can_not_be_noted(
    home: Path, tmp_path: Path, full_disk: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (image,) = backed_up(tmp_path)
    run(["hold", image, "--reason", "case"])
    full_disk()
    for words in ("unhold {}", "expire {}", "retention apply --last 1 --yes", "lock {} --until 9d"):
        assert run(words.format(image).split()) == errors.EXIT_FAILED
        said = capsys.readouterr().err
        assert "nothing is changed: the audit log could not be told of it" in said
    with opening.open_site() as site:
        assert site.catalog.protections()[image].holds == ("case",)


def test_a_restore_goes_on_where_it_can_not_be_noted_and_says_so(
    home: Path, tmp_path: Path, full_disk: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (image,) = backed_up(tmp_path)
    full_disk()
    assert run(["restore", image, "--to", str(tmp_path / "back")]) == 0
    assert "warning: the audit log will not have this" in capsys.readouterr().err
    assert list((tmp_path / "back").rglob("file"))
    assert run(["gc"]) == 0


def test_a_restore_needs_no_database_and_is_told_when_there_is_one(
    home: Path, tmp_path: Path
) -> None:
    (image,) = backed_up(tmp_path)
    database = home / "catalog" / "catalog.db"
    assert rows()
    kept = database.read_bytes()
    database.write_bytes(b"this is no database" * 1000)
    for beside in ("-wal", "-shm"):
        database.with_name(database.name + beside).unlink(missing_ok=True)
    assert run(["restore", image, "--to", str(tmp_path / "back")]) == 0
    database.write_bytes(kept)
    assert heard()[-1] == ("restore_image", f"images/{image}/restores", "done")


# -- notes ------------------------------------------------------------------------------------


def test_a_command_that_is_killed_is_told_as_of_unknown_end(home: Path, tmp_path: Path) -> None:
    (image,) = backed_up(tmp_path)
    words = [sys.executable, "-m", "holdfast", "verify", image]
    # It waits for its key, for ever.
    key = home / "pool.key"
    kept = key.read_bytes()
    key.unlink()
    os.mkfifo(key, 0o600)
    child = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        while not list((home / "acts").glob("[0-9]*.json")):
            assert child.poll() is None
            time.sleep(0.01)
        assert heard()[1:] == []
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    key.unlink()
    key.write_bytes(kept)
    assert heard()[1:] == [("verify_pool", "pool/verifications", "unknown")]
    assert json.loads(rows()[-1].entry.details)["begun_ns"]
    assert not list((home / "acts").iterdir())


def test_a_note_that_is_heard_twice_makes_its_rows_once(home: Path, tmp_path: Path) -> None:
    (image,) = backed_up(tmp_path)
    assert run(["restore", image, "--to", str(tmp_path / "back")]) == 0
    (note,) = (home / "acts").glob("*.json")
    content = note.read_bytes()
    before = rows()
    note.write_bytes(content)
    assert rows() == before
    assert not note.exists()


def test_a_damaged_note_is_told_as_that_and_is_in_nobodys_way(home: Path) -> None:
    rows()
    for content in (b"", b"[]", b"{", b'{"id": 3}', b'{"rows": [1]}', b'{"rows": [{}]}'):
        note = home / "acts" / "123-ab.json"
        note.write_bytes(content)
        with opening.open_site() as site:
            AuditLog(site.database, site.clock).head()
            _ = site.catalog
        assert not note.exists()
    assert heard() == [("note_damaged", "acts/123-ab", "unknown")]


def test_notes_of_images_are_told_though_the_catalog_is_made_anew(
    home: Path, tmp_path: Path
) -> None:
    assert run(["backup", str(tmp_path / "tree")]) == 0
    assert run(["catalog", "rebuild"]) == 0
    assert [what for what, _, _ in heard()] == ["back_up", "rebuild_catalog"]


def test_a_note_of_somebody_at_work_is_left_alone(tmp_path: Path) -> None:
    notes = ActNotes(tmp_path)
    draft = notes.begin("local:me", 5)
    draft.write(draft.note, durable=False)
    assert list(notes.told()) == []
    draft.write(draft.note._replace(ended_ns=6), durable=True)
    assert [note for _, note in notes.told()] == [draft.note]
    assert list(notes.told()) == []


# -- the activity log -------------------------------------------------------------------------


def jobs() -> list[tuple[str, str, str | None, str | None]]:
    """Kind, outcome, source and error of all jobs, oldest first."""
    with opening.open_site() as site:
        _ = site.catalog
        book = JobBook(site.database, site.clock)
        found = sorted(book.each(Wanted()), key=lambda one: one.id)
    return [
        (str(one.kind), str(one.outcome), one.source, one.error.code if one.error else None)
        for one in found
    ]


def test_restores_expiry_and_collections_are_jobs_that_have_ended(
    home: Path, tmp_path: Path
) -> None:
    image, other = backed_up(tmp_path, 2)
    source = f"{os.uname().nodename}:{tmp_path / 'tree'}"
    back = str(tmp_path / "back")
    assert run(["restore", image, "--to", back]) == 0
    assert run(["restore", image, "--to", back]) == errors.EXIT_FAILED  # it is not empty
    assert run(["expire", other]) == 0
    assert run(["gc"]) == 0
    assert run(["verify"]) == 0
    assert jobs()[2:] == [
        ("restore", "completed", source, None),
        ("expire", "completed", None, None),
        ("collect", "completed", None, None),
    ]
    with opening.open_site() as site:
        (restored,) = JobBook(site.database, site.clock).each(Wanted(kinds=(JobKind.RESTORE,)))
    assert restored.counters["files"] == 2
    numbers = {json.loads(one.entry.details).get("job") for one in rows()}
    assert {3, 4, 5} <= numbers


def test_what_failed_is_a_job_that_failed_and_is_not_tried_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = backed_up(tmp_path)
    source = f"{os.uname().nodename}:{tmp_path / 'tree'}"

    def full(*_given: object) -> None:
        raise errors.NoSpace("the disk is full", "make room")

    def stopped(*_given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("holdfast.site.site.run_backup", full)
    assert run(["backup", str(tmp_path / "tree")]) == errors.EXIT_FAILED
    monkeypatch.setattr("holdfast.faces.cli.restore.restore_paths", stopped)
    assert run(["restore", image, "--to", str(tmp_path / "back")]) == errors.EXIT_INTERRUPTED
    assert jobs()[1:] == [
        ("backup", "failed", source, "no-space"),
        ("restore", "cancelled", source, None),
    ]
    assert [outcome for _, _, outcome in heard()] == ["done", "failed", "failed"]
