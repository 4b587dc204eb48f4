"""An agent one version of the protocol older, at work for the present master and media server.

It is that agent itself: the Python code of this repository right before the version became what it
is, over the present engine. What that engine does for it is what it did then, as its calls only get
more arguments. Where the history is not there (a shallow clone, a source archive), this is skipped;
how the present master speaks with a machine that says less, `unit/test_machines_door.py` has at all
times.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.engine import _engine
from holdfast.wire.messages import VERSION
from tests.kit.trees import assert_same_tree
from tests.system.machines.test_agents import protect

if TYPE_CHECKING:
    from tests.kit.agents import MachineSite

CHECKOUT = Path(__file__).parents[3]
MESSAGES = "src/holdfast/wire/messages.py"


def git(*words: str) -> bytes:
    """What git says in the checkout; nothing where it can't."""
    try:
        done = subprocess.run(
            ("git", "-C", CHECKOUT, *words), capture_output=True, check=False, timeout=60
        )
    except OSError:
        return b""
    return done.stdout if done.returncode == 0 else b""


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The source of one version before, with the present engine in it."""
    became = git("log", "-1", "--format=%H", "-G^VERSION = ", "--", MESSAGES).decode().strip()
    archive = git("archive", f"{became}^", "src/holdfast") if became else b""
    if not archive:
        pytest.skip("the history of the repository is not here")
    place = tmp_path / "older"
    place.mkdir()
    subprocess.run(("tar", "-x", "-C", place), input=archive, check=True)
    shutil.copy(_engine.__file__, place / "src" / "holdfast" / "engine")
    return place / "src"


def version(source: Path) -> int:
    """Which version of work a source knows, if that is the one that runs."""
    program = "from holdfast.wire import messages as m; print(m.VERSION, m.__file__)"
    done = subprocess.run(
        (sys.executable, "-c", program),
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    found, file = done.stdout.split(maxsplit=1)
    assert Path(file.strip()).is_relative_to(source)
    return int(found)


def test_an_agent_of_the_version_before_backs_up_and_restores(
    network: MachineSite, older: Path, tree: Path, tmp_path: Path
) -> None:
    assert version(older) == VERSION - 1
    before = {"PYTHONPATH": str(older)}
    with network.media_server("media1") as media, network.machine("web1", before) as web1:
        protect(network, "web1", tree)
        first = network.ended(network.run("web1"))
        assert first["outcome"] == "completed", first
        (tree / "new").write_bytes(os.urandom(300_000))
        second = network.ended(network.run("web1"))
        assert second["outcome"] == "completed", second
        oldest, newest = network.listed("images")
        assert newest["parent"] == oldest["id"]
        assert newest["transmitted_bytes"] < 400_000
        assert media.log.read_text().count("is in the pool") == 2
        # What the older one stored the present one restores, and the other way round.
        with network.machine("web2"):
            for client in ("web1", "web2"):
                to = tmp_path / "back" / client
                words = ("restore", newest["id"], "--to", to, "--client", client, "--verify")
                done = network.ended(int(network.site(*words).assert_ok().text))
                assert done["outcome"] == "completed", done
                assert_same_tree(tree, os.fsencode(to) + os.fsencode(tree))
        # Upgraded in place, it goes on with what it has.
        web1.stop()
        del web1.command.environ["PYTHONPATH"]
        web1.start()
        network.await_connected("web1")
        third = network.ended(network.run("web1"))
        assert third["outcome"] == "completed", third
        assert third["counters"]["transmitted_bytes"] < 400_000
        web1.stop()
    network.site("pool", "check", "--read-data").assert_ok()
