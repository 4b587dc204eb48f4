"""The zone of the machine, by its name."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

from holdfast.base.zones import machine_zone


def installed(name: str) -> Path:
    return next(Path(place) / name for place in TZPATH if (Path(place) / name).exists())


def test_the_environment_goes_first(tmp_path: Path) -> None:
    (tmp_path / "localtime").symlink_to(installed("Europe/Berlin"))
    environ = {"TZ": ":America/New_York"}
    assert machine_zone(environ, tmp_path / "localtime") == ZoneInfo("America/New_York")


def test_a_link_tells_its_name(tmp_path: Path) -> None:
    (tmp_path / "localtime").symlink_to(installed("Europe/Berlin"))
    for environ in ({}, {"TZ": ""}, {"TZ": "Mars/Olympus"}, {"TZ": "../../etc/passwd"}):
        assert machine_zone(environ, tmp_path / "localtime") == ZoneInfo("Europe/Berlin")


def test_a_copy_has_no_name_and_knows_its_changes(tmp_path: Path) -> None:
    (tmp_path / "localtime").write_bytes(installed("Europe/Berlin").read_bytes())
    zone = machine_zone({}, tmp_path / "localtime")
    offsets = {datetime(2026, month, 1, tzinfo=zone).utcoffset() for month in (1, 7)}
    assert len(offsets) == 2


def test_a_machine_without_a_zone_has_utc(tmp_path: Path) -> None:
    assert machine_zone({}, tmp_path / "nowhere") == ZoneInfo("UTC")
    (tmp_path / "localtime").write_bytes(b"no zone")
    assert machine_zone({}, tmp_path / "localtime") == ZoneInfo("UTC")
