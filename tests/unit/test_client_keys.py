"""Client keys of a machine: made, kept, carried, found; and the commands for that."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path

import pytest

from holdfast.base.errors import (
    AlreadyExists,
    ClientKeyNeeded,
    ConfigInvalid,
    HoldfastError,
    Invalid,
    Unsupported,
)
from holdfast.base.ids import ClientName
from holdfast.engine import ClientKey, Pool, PoolConfig
from holdfast.faces.cli.main import run
from holdfast.movers.backup_run import BackupOrder, run_backup
from holdfast.movers.client_keys import ClientKeys, read_text
from holdfast.movers.probe import look
from holdfast.movers.remote_agent import agent_answers
from holdfast.wire.looking import LookOrder
from holdfast.wire.messages import SEALING_VERSION, BackupWork, work_from_json
from tests.kit.clock import FakeClock

WORK = BackupWork("web1", "web1:/srv", ("/srv",))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def ended(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = run(words)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_key_is_there_for_its_owner_alone_and_is_found_by_name_and_by_id(tmp_path: Path) -> None:
    keys = ClientKeys(tmp_path)
    assert keys.all() == []
    made, other = keys.create("office"), keys.create("home")
    assert made.id == ClientKey(made.secret).id != other.id
    assert [one.name for one in ClientKeys(tmp_path).all()] == ["home", "office"]
    assert keys.find("office") == keys.find(made.id) == made
    file = tmp_path / "client-keys" / "office.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert made.secret.hex() not in repr(made) + repr(made.key)
    with pytest.raises(ClientKeyNeeded, match="'lost'"):
        keys.find("lost")


def test_no_key_is_replaced_and_none_is_there_twice(tmp_path: Path) -> None:
    keys = ClientKeys(tmp_path)
    made = keys.create("office")
    with pytest.raises(AlreadyExists, match=made.id):
        keys.create("office")
    for name in ("office", "again"):
        with pytest.raises(AlreadyExists, match="as 'office'"):
            keys.add(name, made.secret)
    for name in ("", "../x", "Office", "a b", "ab" * 16):
        with pytest.raises(Invalid):
            keys.create(name)
    assert keys.all() == [made]


def test_a_key_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    keys = ClientKeys(tmp_path)
    keys.create("office")
    file = tmp_path / "client-keys" / "office.key"
    file.chmod(0o640)
    with pytest.raises(ConfigInvalid, match="640"):
        keys.find("office")
    file.chmod(0o600)
    for text in ("", "rubbish", file.read_text()[:-5], file.read_text() * 2):
        file.write_text(text)
        with pytest.raises(ConfigInvalid, match="no client key"):
            keys.find("office")


def test_a_page_is_read_back_and_a_wrong_digit_names_its_line(tmp_path: Path) -> None:
    made = ClientKeys(tmp_path).create("office")
    text = made.text()
    lines = [line for line in text.splitlines() if line.startswith("    ") and line[4].isdigit()]
    assert len(lines) == 8
    # Also the lines alone, in any order, in capitals, with other blanks.
    assert read_text(text) == made.secret
    assert read_text("\n".join(reversed(lines)).upper()) == made.secret
    assert read_text("\n".join(" ".join(line.split()) for line in lines)) == made.secret
    assert read_text((tmp_path / "client-keys" / "office.key").read_text()) == made.secret
    digit = "0" if lines[4][7] != "0" else "1"
    wrong = lines[4][:7] + digit + lines[4][8:]
    with pytest.raises(Invalid, match="line 5"):
        read_text(text.replace(lines[4], wrong))
    with pytest.raises(Invalid, match="no line 3"):
        read_text(text.replace(lines[2], ""))
    # The lines of another key under this one's id.
    other = ClientKeys(tmp_path / "other").create("office").text()
    with pytest.raises(Invalid, match=made.id):
        read_text(other.replace(f"Key     {_id_in(other)}", f"Key     {made.id}"))
    for text in ("", "word " * 26, "x" * 70_000):
        with pytest.raises(Invalid):
            read_text(text)


def _id_in(text: str) -> str:
    return next(line.split()[1] for line in text.splitlines() if line.startswith("Key "))


def test_a_key_goes_to_another_machine_on_paper(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, out, err = ended(capsys, "client-key", "create", "office", "--json")
    made = json.loads(out)
    assert (status, made["name"]) == (0, "office"), err
    assert "export office" in err
    status, page, _ = ended(capsys, "client-key", "export", made["id"])
    assert (status, made["id"] in page) == (0, True)
    stick = tmp_path / "stick.txt"
    assert ended(capsys, "client-key", "export", "office", "--output", str(stick))[0] == 0
    assert (stick.read_text(), stat.S_IMODE(stick.stat().st_mode)) == (page, 0o600)
    assert ended(capsys, "client-key", "export", "office", "--output", str(stick))[0] == 2

    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "elsewhere"))
    status, out, err = ended(capsys, "client-key")
    assert (status, "office" in out) == (0, False)
    assert "client-key create" in err
    status, out, _ = ended(capsys, "client-key", "import", "web1", str(stick))
    assert (status, made["id"] in out) == (0, True)
    status, out, _ = ended(capsys, "client-key", "show", "web1", "--json")
    assert json.loads(out) == {"name": "web1", "id": made["id"]}
    monkeypatch.setattr("sys.stdin", io.StringIO(page))
    assert ended(capsys, "client-key", "import", "again")[0] == 2
    status, _, err = ended(capsys, "client-key", "show", "office")
    assert (status, "no client key 'office'" in err) == (2, True)
    assert home.exists()


def test_names_are_revealed_where_the_key_is(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ClientKeys(home).create("office").key
    sealed = os.fsdecode(key.seal_path(b"/srv/a plan"))
    assert "plan" not in sealed
    status, out, _ = ended(capsys, "client-key", "reveal", "office", sealed, "/plain")
    assert (status, out) == (0, "/srv/a plan\n/plain\n")


def test_work_that_seals_is_refused_by_whoever_does_not_know_of_it() -> None:
    sealing = BackupWork("web1", "s", ("/srv",), client_key="office", sealed_names=True)
    assert sealing.to_json()["version"] == SEALING_VERSION == 2
    assert work_from_json(json.loads(json.dumps(sealing.to_json()))) == sealing
    # What does not seal is understood as before.
    plain = WORK.to_json()
    assert plain["version"] == 1
    assert not {"client_key", "sealed_names"} & plain.keys()
    assert work_from_json(plain) == WORK


def test_a_machine_says_whether_it_has_a_key_and_nothing_more(tmp_path: Path) -> None:
    keys = ClientKeys(tmp_path)
    made = keys.create("office")
    ask = agent_answers(keys, tmp_path / "scratch")["look"]
    for wanted in ("office", made.id):
        said = ask(LookOrder((str(tmp_path),), client_key=wanted).to_json())
        assert said["troubles"] == ()
        assert made.secret.hex() not in json.dumps(said)
    said = ask(LookOrder((str(tmp_path),), client_key="lost").to_json())
    (trouble,) = said["troubles"]
    assert (trouble["severity"], trouble["cause"], trouble["about"]) == (
        "error",
        "no-client-key",
        "lost",
    )


def test_the_site_itself_seals_nothing_with_client_keys(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (trouble,) = look(LookOrder((str(tmp_path),), client_key="office")).troubles
    assert (trouble.severity, trouble.cause) == ("error", "no-client-key")
    pool = Pool.create(str(tmp_path / "pool"), bytes(32), PoolConfig(), 1)
    order = BackupOrder(ClientName("here"), (os.fsencode(tmp_path),), client_key="office")
    with pytest.raises(Unsupported, match="'here'") as caught:
        run_backup(pool, order, FakeClock())
    assert isinstance(caught.value, HoldfastError)
    assert pool.images() == []


def test_a_look_names_no_file_that_the_policy_does_not_name(tmp_path: Path) -> None:
    (tmp_path / "a secret").touch()
    (tmp_path / "way").symlink_to("a secret")
    asked = [str(tmp_path / "a secre"), str(tmp_path / "way")]
    for sealed in (False, True):
        report = look(LookOrder(tuple(asked), sealed_names=sealed))
        assert {one.cause for one in report.troubles} == {"missing", "symbolic-link"}
        assert ("a secret" in json.dumps(report.to_json())) is not sealed
