"""Settings: who set what, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from holdfast.base import settings
from holdfast.base.errors import ConfigInvalid

if TYPE_CHECKING:
    from pathlib import Path


def test_a_site_without_settings_has_the_defaults(tmp_path: Path) -> None:
    found = settings.load(tmp_path, {})
    assert {one.origin for one in found.values()} == {"default"}
    assert [one.setting for one in found.values()] == list(settings.SETTINGS)
    assert found.count("jobs.slots") == 2
    assert found.seconds("jobs.history") == 730 * 86400
    assert found.zone("site.zone") is None


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        'version = 1\n[pool]\nurl = "/p"\n[jobs]\nslots = 5\nattempts = "4"\n'
        '[site]\nzone = "Europe/Berlin"\n'
    )
    found = settings.load(tmp_path, {"HOLDFAST_JOBS_SLOTS": "7"})
    origins = {one.setting.key: one.origin for one in found.values()}
    assert (found.count("jobs.slots"), origins["jobs.slots"]) == (7, "environment")
    assert (found.count("jobs.attempts"), origins["jobs.attempts"]) == (4, "file")
    assert found.zone("site.zone") == ZoneInfo("Europe/Berlin")
    assert origins["database.url"] == "default"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[jobs]\nslot = 5", "no setting 'jobs.slot'"),
        ("slots = 5", "no setting 'slots'"),
        ("[jobs]\nslots = 0", "'0' is not a number of 1 or more"),
        ("[jobs]\nslots = true", "jobs.slots has to be a text or a number"),
        ("[jobs]\nhistory = 'long'", "'long' is not a duration"),
        ("[site]\nzone = 'Mars/Olympus'", "'Mars/Olympus' is not a time zone"),
        ("[site]\nzone = '../../etc/passwd'", "is not a time zone"),
        ("jobs = [", "can't read"),
    ],
)
def test_what_can_not_be_is_refused_by_name(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "config.toml").write_text(written)
    with pytest.raises(ConfigInvalid, match=said):
        settings.load(tmp_path, {})


def test_a_near_miss_is_suggested_and_a_bad_variable_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[serve]\nlisten-on = 'x'")
    with pytest.raises(ConfigInvalid) as refused:
        settings.load(tmp_path, {})
    assert refused.value.hint == "did you mean 'serve.listen'?"
    (tmp_path / "config.toml").unlink()
    with pytest.raises(ConfigInvalid, match="variable HOLDFAST_JOBS_SLOTS: 'many'"):
        settings.load(tmp_path, {"HOLDFAST_JOBS_SLOTS": "many"})
