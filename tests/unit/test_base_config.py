"""Where a site lives, and what its configuration says."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.base import config
from holdfast.base.errors import ConfigInvalid, NewerFormat, SiteMissing

POOL_ID = "0123456789abcdef0123456789abcdef"
HOME = Path("/home/ann")


def test_the_environment_names_the_home_first() -> None:
    environ = {"HOLDFAST_HOME": "/srv/h", "XDG_DATA_HOME": "/x"}
    assert config.default_home(environ, 1000, HOME) == Path("/srv/h")
    assert config.default_home(environ, 0, HOME) == Path("/srv/h")


def test_root_and_others_have_their_own_default_home() -> None:
    assert config.default_home({}, 0, HOME) == Path("/var/lib/holdfast")
    assert config.default_home({}, 1000, HOME) == HOME / ".local/share/holdfast"
    assert config.default_home({"XDG_DATA_HOME": "/x"}, 1000, HOME) == Path("/x/holdfast")
    relative = config.default_home({"XDG_DATA_HOME": "x"}, 1000, HOME)
    assert relative == HOME / ".local/share/holdfast"


@given(
    url=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    path=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_what_was_saved_is_loaded(tmp_path: Path, url: str, path: str) -> None:
    saved = config.SiteConfig(url, POOL_ID, "key-file", Path(path))
    config.save(tmp_path, saved)
    assert config.load(tmp_path) == saved
    assert stat.S_IMODE((tmp_path / config.CONFIG_NAME).stat().st_mode) == 0o600


def test_a_passphrase_needs_no_path(tmp_path: Path) -> None:
    saved = config.SiteConfig("/pool", POOL_ID, "passphrase")
    config.save(tmp_path, saved)
    assert config.load(tmp_path) == saved


def test_no_site_is_told_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(SiteMissing) as caught:
        config.load(tmp_path / "nowhere")
    assert caught.value.hint is not None
    assert "holdfast init" in caught.value.hint


def test_a_newer_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / config.CONFIG_NAME).write_text("version = 2\n")
    with pytest.raises(NewerFormat):
        config.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 1",
        "not toml",
        "version = 1\npool = 3",
        f'version = 1\n[pool]\nurl = "/p"\nid = "{POOL_ID}"\n[key]\nsource = "magic"',
        f'version = 1\n[pool]\nurl = "/p"\nid = "{POOL_ID}"\n[key]\nsource = "key-file"',
        f'version = 1\n[pool]\nurl = ""\nid = "{POOL_ID}"\n[key]\nsource = "passphrase"',
    ],
)
def test_a_configuration_without_sense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / config.CONFIG_NAME).write_text(text)
    with pytest.raises(ConfigInvalid):
        config.load(tmp_path)


def test_a_configuration_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / config.CONFIG_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigInvalid):
        config.load(tmp_path)
