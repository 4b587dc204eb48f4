"""Time zones, by their names; that of this machine too.

Must not be asked for the time. A zone with a name knows when its clocks change; an offset alone
does not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from holdfast.base.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

_LOCALTIME = Path("/etc/localtime")
_ZONES = "zoneinfo/"


def zone_named(name: str) -> ZoneInfo:
    """The zone of a name.

    Raises:
        NotFound: There is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise NotFound(
            f"there is no time zone '{name}'", "write for example Europe/Berlin or UTC"
        ) from error


def machine_zone(environ: Mapping[str, str] = os.environ, localtime: Path = _LOCALTIME) -> tzinfo:
    """The zone that ``TZ`` names, else the one that ``/etc/localtime`` is, else UTC.

    Args:
        environ: The process's environment.
        localtime: The machine's choice: a link into the system's zones, or a copy of one.
    """
    named = environ.get("TZ", "").removeprefix(":")
    for name in (named, os.path.realpath(localtime).partition(_ZONES)[2]):
        if name:
            try:
                return ZoneInfo(name)
            except (ZoneInfoNotFoundError, OSError, ValueError):
                # Not a name, or one that is not installed: ask the next.
                continue
    try:
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file, key="local")
    except (OSError, ValueError):
        return ZoneInfo("UTC")
