"""Users, tokens and the audit log by the command line, with and without a site that is served."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kit.command import Command
from tests.system.command_line.test_command_line import on_terminal

GOOD = "four words nobody guesses"


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(GOOD + "\n")
    return file


def test_users_are_made_changed_listed_and_removed(site: Command, password: Path) -> None:
    add = ("user", "add", "alice", "--role", "administrator", "--password-file", password)
    assert site(*add).assert_ok().text == "made alice: administrator, clients: all\n"
    site("user", "add", "bob", "--role", "operator", "--no-password").assert_ok()
    site("user", "set-role", "bob", "auditor", "--client", "web*").assert_ok()
    site("user", "disable", "bob").assert_ok()
    alice, bob = site("user", "list", "--json").assert_ok().json_lines()
    assert (alice["name"], alice["has_password"], alice["disabled"]) == ("alice", True, False)
    assert (bob["role"], bob["scope"], bob["disabled"]) == ("auditor", ["web*"], True)
    site("user", "enable", "bob").assert_ok()
    site("user", "set-password", "bob", "--password-file", password).assert_ok()
    assert "with a password" in site("user", "list").assert_ok().text.splitlines()[2]
    site("user", "remove", "bob").assert_failed(64, "nobody is here to ask", "--yes")
    site("user", "remove", "bob", "--yes").assert_ok()
    assert len(site("user", "list", "--json").assert_ok().json_lines()) == 1


def test_what_cannot_be_is_refused_in_clear_words(site: Command, tmp_path: Path) -> None:
    bad = ("--role", "operator", "--no-password")
    site("user", "add", "Bob", *bad).assert_failed(64, "'Bob' can't be the name of a user")
    site("user", "add", "bob", *bad, "--client", "a:b").assert_failed(64, "'a:b' is not a glob")
    site("user", "add", "bob", *bad).assert_ok()
    site("user", "add", "bob", *bad).assert_failed(2, "there is a user 'bob' already")
    site("user", "disable", "eve").assert_failed(2, "there is no user 'eve'", "holdfast user list")
    site("user", "add", "eve", "--role", "king").assert_failed(64, "'king'", "operator")
    site("user", "add", "eve", "--role", "operator").assert_failed(64, "nobody is here to ask")
    missing = ("--role", "operator", "--password-file", tmp_path / "none")
    site("user", "add", "eve", *missing).assert_failed(2, "there is no file")
    short = tmp_path / "short"
    short.write_text("short\n")
    site("user", "set-password", "bob", "--password-file", short).assert_failed(64, "10 to 1000")
    site("token", "create", "x").assert_failed(64, "local:", "--user")
    site("token", "create", "x", "--user", "bob", "--expires", "2020-01-01").assert_failed(
        64, "past"
    )
    site("token", "revoke", "nothing").assert_failed(2, "there is no token 'nothing'")
    site("audit", "verify", "--head", "7").assert_failed(64, "'7' is not a head")
    site("audit", "verify", "--file", tmp_path / "none").assert_failed(2, "there is no file")
    site("audit", "verify", "--file", short).assert_failed(64, "no row of an audit log")


def test_a_home_without_a_site_is_told_so(holdfast: Command) -> None:
    holdfast("user", "list").assert_failed(2, "there is no Holdfast site", "holdfast init")


def test_a_token_says_who_asks_and_a_wrong_one_is_refused(site: Command, password: Path) -> None:
    site("user", "add", "bob", "--role", "operator", "--password-file", password).assert_ok()
    made = site("token", "create", "ci", "--user", "bob", "--expires", "90d").assert_ok()
    secret = made.text.strip()
    assert re.fullmatch(r"hf_[\w-]{43}", secret)
    bob = replace(site, environ={"HOLDFAST_TOKEN": secret})
    bob("user", "list").assert_failed(2, "bob may not do that", "manage-users")
    session = site("user", "login", "bob", "--password-file", password).assert_ok().text.strip()
    logged_in = replace(site, environ={"HOLDFAST_TOKEN": session})
    (listed,) = logged_in("token", "list", "--json").assert_ok().json_lines()
    assert listed["name"] == "ci"
    site("token", "revoke", listed["id"]).assert_ok()
    bob("user", "list").assert_failed(2, "the token 'ci' was revoked", "HOLDFAST_TOKEN")
    nobody = replace(site, environ={"HOLDFAST_TOKEN": "hf_nonsense"})
    nobody("user", "list").assert_failed(2, "not one of this site")


def test_every_act_is_in_the_log_which_is_verified_and_exported(
    site: Command, password: Path, tmp_path: Path
) -> None:
    site("user", "add", "bob", "--role", "operator", "--password-file", password).assert_ok()
    site("user", "remove", "eve", "--yes").assert_failed(2, "eve")
    site("user", "login", "bob", "--password-file", password).assert_ok()
    rows = site("audit", "list", "--json").assert_ok().json_lines()
    assert [(row["what"], row["object"], row["outcome"]) for row in rows] == [
        ("create_site", "site", "done"),
        ("create_user", "users/bob", "done"),
        ("log_in", "users/bob", "done"),
    ]
    file = tmp_path / "audit.jsonl"
    exported = site("audit", "export", "--to", file).assert_ok()
    head = exported.err.split()[-1]
    assert head.startswith("3:")
    site("audit", "export", "--to", file).assert_failed(2, "is there already")
    verified = site("audit", "verify", "--head", head).assert_ok().text
    assert verified == f"3 rows are as they were written\nhead {head}\n"
    site("audit", "verify", "--file", file, "--head", head).assert_ok()
    assert GOOD not in file.read_text()

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["details"]["body"]["role"] = "auditor"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    forged = site("audit", "verify", "--file", file)
    assert forged.status == 2
    assert "row 2 is the first that is not: it was changed" in forged.err


def test_what_is_cut_off_is_seen_with_a_head_and_what_is_changed_without(site: Command) -> None:
    for name in ("bob", "eve", "kim"):
        site("user", "add", name, "--role", "operator", "--no-password").assert_ok()
    head = site("audit", "verify").assert_ok().text.split()[-1]
    database = site.home / "catalog" / "catalog.db"
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM audit WHERE seq = 4")
        connection.execute(
            "UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM audit WHERE seq = 3)"
        )
    connection.close()
    site("audit", "verify").assert_ok()
    cut = site("audit", "verify", "--head", head)
    assert cut.status == 2
    assert "row 4 is the first that is not: it is missing" in cut.err
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE audit SET who = 'eve' WHERE seq = 1")
    connection.close()
    assert "row 1 is the first that is not: it was changed" in site("audit", "verify").err


def test_tables_fit_eighty_columns(site: Command, password: Path) -> None:
    name = "somebody.with.a.long.name@example.org"
    add = ("user", "add", name, "--role", "restore-operator", "--password-file", password)
    clients = [f"--client=a-rather-long-name-{at}*" for at in range(9)]
    site(*add, *clients, "--display-name", "Somebody with a Long Name").assert_ok()
    site("token", "create", "for the nightly reports of all", "--user", name).assert_ok()
    for words in (("user", "list"), ("token", "list"), ("audit", "list")):
        status, out, err = on_terminal(site, *words)
        assert status == 0, err
        lines = out.replace("\r", "").splitlines()
        assert max(map(len, lines)) <= 80, out
        assert len(lines) >= 2


SERVE = """
import sys
from pathlib import Path
from holdfast.base.clock import SystemClock
from holdfast.faces.api.app import make_app
from holdfast.faces.api.serving import serving_locally
from holdfast.site.master import Master
from holdfast.site.secrets import SecretSource
home = Path(sys.argv[1])
with Master.open(home, SecretSource(), SystemClock(), {}) as master:
    with serving_locally(make_app(master), home):
        print("ready", flush=True)
        sys.stdin.read()
"""


def test_commands_speak_to_the_site_that_is_served(site: Command, password: Path) -> None:
    import subprocess

    with subprocess.Popen(
        [sys.executable, "-c", SERVE, site.home], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as served:
        assert served.stdout is not None
        assert served.stdout.readline() == b"ready\n"
        # Through the socket: this process could not open the database.
        other = replace(
            site, environ={"HOLDFAST_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}
        )
        other("user", "add", "bob", "--role", "operator", "--no-password").assert_ok()
        (row,) = other("user", "list", "--json").assert_ok().json_lines()
        assert row["name"] == "bob"
        other("user", "add", "bob", "--role", "operator", "--no-password").assert_failed(
            2, "there is a user 'bob' already", "choose another name"
        )
        served.communicate(timeout=60)
    other("user", "list").assert_failed(2, "can't reach the database")
    assert len(site("user", "list", "--json").assert_ok().json_lines()) == 1
