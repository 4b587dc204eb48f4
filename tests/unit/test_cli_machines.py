"""``machine``, ``enroll``, ``agent run`` and ``service install --role agent``, in this process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.base.ids import ClientName
from holdfast.control.access import Role, Scope
from holdfast.faces.cli.main import run
from holdfast.wire.identity import MachineRole
from tests.kit.api import Api
from tests.kit.databases import new_file
from tests.kit.machines import POOL_KEY, Door, open_door, stand_in


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:

    database = new_file(tmp_path / "control.db")
    with open_door(stand_in(database, tmp_path)) as opened:
        yield opened
    database.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def ended(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = run(words)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_machine_joins_by_command_and_only_once(
    door: Door, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = door.token()
    status, out, err = ended(
        capsys, "enroll", door.url, "--token", token.text(), "--name", "web1", "--json"
    )
    assert status == 0, err
    told = json.loads(out)
    assert (told["name"], told["role"], told["master"]) == ("web1", "agent", door.url)
    status, _, err = ended(capsys, "enroll", door.url, "--token", door.token().text())
    assert status == 2
    assert "has joined" in err
    assert "--again" in err
    again = door.token("web1").text()
    words = ("enroll", door.url, "--token", again, "--name", "web1", "--again")
    status, out, err = ended(capsys, *words)
    assert (status, out) == (0, "joined as agent 'web1'\n")
    assert door.book.machine("web1").enrollment == 2


def test_what_is_wrong_with_joining_is_said(
    door: Door, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = door.token().text()
    assert run(["enroll", door.url, "--token", used, "--name", "web1"]) == 0
    home.rename(home.with_name("web1"))
    capsys.readouterr()
    for words, status, said in [
        (("enroll", door.url, "--token", used, "--name", "web2"), 2, "used already"),
        (("enroll", door.url, "--token", "hf_x"), 64, "no enrollment token"),
        (("enroll", "http://x", "--token", used), 64, "over https"),
        (("enroll", door.url, "--token", door.token().text(), "--role", "media"), 64, "role"),
        (
            ("enroll", door.url, "--token", door.token().text(), "--name", "web1"),
            2,
            "machine 'web1' already",
        ),
        (("agent", "run"), 2, "has not joined"),
        (("agent", "run", "--address", "10.0.0.5/24"), 64, "'10.0.0.5/24' is not an address"),
        (("agent", "run", "--address", "0.0.0.0"), 64, "data can't come from 0.0.0.0"),
        (("service", "install", "--role", "agent", "--print"), 2, "has not joined"),
    ]:
        found, out, err = ended(capsys, *words)
        assert (found, out) == (status, ""), err
        assert said in err
        assert err.count("hint: ") == 1


def test_the_unit_of_an_agent_hides_no_file(
    door: Door, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enroll", door.url, "--token", door.token().text(), "--name", "web1"]) == 0
    capsys.readouterr()
    status, out, _ = ended(capsys, "service", "install", "--role", "agent", "--print")
    assert status == 0
    set_ = {line.split("=")[0] for line in out.splitlines() if "=" in line and line[0] != "#"}
    assert {"NoNewPrivileges", "SystemCallFilter", "ProtectKernelTunables"} <= set_
    hiding = {"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "InaccessiblePaths"}
    assert not set_ & (hiding | {"ProtectKernelModules", "ProtectClock", "RestrictSUIDSGID"})
    assert "agent run" in out
    assert f'Environment="HOLDFAST_HOME={home}"' in out
    _, out, _ = ended(capsys, "service", "install", "--role", "agent", "--print", "--user")
    assert "ProtectKernelTunables" not in out


@pytest.mark.parametrize("user", [(), ("--user",)])
def test_systemd_takes_the_unit_of_each_role(
    door: Door,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: tuple[str, ...],
) -> None:
    units = []
    for role in ("site", "agent", "media"):
        monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / f'a "{role}" of 100%'))
        if role != "agent":
            assert run(["init"]) == 0
        if role != "site":
            token = door.token(role=MachineRole(role)).text()
            joining = ["enroll", door.url, "--token", token, "--name", role, "--role", role]
            assert run(joining) == 0
        capsys.readouterr()
        status, out, err = ended(capsys, "service", "install", "--role", role, "--print", *user)
        assert status == 0, err
        name = "holdfast.service" if role == "site" else f"holdfast-{role}.service"
        units.append(tmp_path / name)
        # What starts it in this test is no program of systemd's taste.
        units[-1].write_text(re.sub("(?m)^ExecStart=.*", "ExecStart=/bin/true", out))
        assert "100%%" in out
    media = units[-1].read_text()
    assert ("ProtectSystem=strict" in media) is not bool(user)
    assert f'ReadWritePaths="{tmp_path}/a \\"media\\" of 100%%"' in media or user
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    said = analyzed("verify", *(("--user",) if user else ()), *map(str, units))
    assert not said, said
    if not user:
        exposed = {
            one.name: float(re.findall(r"level for [^:]+: ([\d.]+)", said)[0])
            for one in units
            if (said := analyzed("security", "--offline=yes", "--no-pager", str(one)))
        }
        assert exposed["holdfast-media.service"] < 4
        assert exposed["holdfast-agent.service"] < 8.5
        assert exposed["holdfast.service"] == exposed["holdfast-agent.service"]
        assert exposed["holdfast-media.service"] < exposed["holdfast-agent.service"]


def analyzed(*words: str) -> str:
    """What systemd says of units; of other units of this machine nothing is wanted."""
    environ = {**os.environ, "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", "/tmp")}
    done = subprocess.run(
        ["systemd-analyze", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environ,
    )
    return done.stdout + "".join(
        line for line in done.stderr.splitlines(keepends=True) if "holdfast" in line
    )


def test_only_a_media_server_has_a_media_servers_unit(
    door: Door, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enroll", door.url, "--token", door.token().text(), "--name", "web1"]) == 0
    capsys.readouterr()
    status, out, err = ended(capsys, "service", "install", "--role", "media", "--print")
    assert (status, out) == (2, "")
    assert "not as a media server" in err


def test_the_unit_of_a_media_server_without_a_site_may_write_on_its_disks(
    door: Door, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = door.token(role=MachineRole.MEDIA).text()
    joining = ["enroll", door.url, "--token", token, "--name", "m1", "--role", "media"]
    assert run(joining) == 0
    (home / "pools.toml").write_text('version = 1\n\n[pools]\nab = "/srv/old"\n')
    capsys.readouterr()
    disks = ("--disk", "/srv/a b", "--disk", "/srv/old")
    status, out, err = ended(capsys, "service", "install", "--role", "media", "--print", *disks)
    assert (status, err) == (0, "")
    assert f'ReadWritePaths="{home}" "-/srv/a b" "-/srv/old"\n' in out
    status, _, err = ended(capsys, "service", "install", "--print", *disks)
    assert status == 64
    assert "--role media" in err


def test_machines_are_seen_within_the_scope_of_who_asks(api: Api) -> None:
    book = api.master.machines
    client = api.client()
    with pytest.raises(Exception, match="takes no machines"):
        client.post("/machine-tokens", {})
    ca = book.authority(POOL_KEY)
    made = client.post("/machine-tokens", {"name": "web1", "valid_s": 60})
    assert made["token"].startswith("hfe1.")
    assert made["name"] == "web1"
    joined(api, ca, made["token"], "web1")
    joined(api, ca, client.post("/machine-tokens", {})["token"], "db1")
    assert [row["name"] for row in client.pages("/machines")] == ["db1", "web1"]
    bounded = api.client(api.token(Role.OPERATOR, Scope(("web*",))))
    assert [row["name"] for row in bounded.pages("/machines")] == ["web1"]
    with pytest.raises(Exception, match="no machine 'db1'"):
        bounded.get("/machines/db1")
    out = client.post("/machines/web1/revoke")
    assert out["revoked_at"] is not None
    assert client.get("/machines/web1") == out
    told = [row.entry for row in api.audited()]
    assert [one.what for one in told if one.outcome == "done"] == [
        "invite_machine",
        "enroll",
        "invite_machine",
        "enroll",
        "revoke_machine",
    ]
    assert all(made["token"].split(".")[1] not in one.details for one in told)


def joined(api: Api, ca: Any, token: str, name: str) -> None:
    from datetime import timedelta

    from holdfast.base.ids import ClientName
    from holdfast.wire.identity import EnrollmentToken, MachineKey, MachineRole

    api.master.machines.enroll(
        ca,
        secret=EnrollmentToken.parse(token).secret,
        csr_pem=MachineKey.generate().csr_pem(),
        role=MachineRole.AGENT,
        name=ClientName(name),
        life=timedelta(days=7),
        details={},
    )


BARE = """
import sys

for name in ("sqlalchemy", "alembic", "fastapi", "pydantic", "uvicorn", "httpx", "starlette"):
    sys.modules[name] = None
from holdfast.faces.cli.main import run

sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize("role", ["agent", "media"])
def test_the_bare_install_joins_and_runs(door: Door, home: Path, role: str) -> None:
    def bare(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", BARE, *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    token = door.token(role=MachineRole(role)).text()
    joined = bare("enroll", door.url, "--token", token, "--name", "web1", "--role", role)
    assert joined.returncode == 0, joined.stderr
    assert bare("service", "install", "--role", role, "--print").returncode == 0
    door.book.revoke(ClientName("web1"))
    ran = bare("agent", "run") if role == "agent" else bare("media", "run", "--listen", ":0")
    assert ran.returncode == 2
    assert "was revoked" in ran.stderr


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        ("holdfast.engine._engine", ("agent", "run"), "engine is not installed"),
        ("sqlalchemy", ("images",), "'holdfast[site]'"),
        ("cryptography", ("enroll", "https://x", "--token", "hfe1.x.y"), "--force-reinstall"),
    ],
)
def test_what_an_installation_lacks_is_said_with_what_brings_it(
    door: Door, home: Path, module: str, words: tuple[str, ...], said: str
) -> None:
    if module == "holdfast.engine._engine":
        token = door.token().text()
        assert run(["enroll", door.url, "--token", token, "--name", "web1"]) == 0
    elif module == "sqlalchemy":
        assert run(["init"]) == 0
    # As the import system says it of a module that is nowhere.
    code = f"""
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Nowhere())
from holdfast.faces.cli.main import run
sys.exit(run(sys.argv[1:]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "hint: " in done.stderr
