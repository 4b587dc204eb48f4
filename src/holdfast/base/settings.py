"""Settings of a site: what there is to set, what it is set to, and by whom.

Must not act on a setting. Invariants: every setting has a default, so that a site works without
any; the environment goes before the file, the file before the default; a name that is not a
setting is refused, so that a misspelt one is not taken for the default.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from holdfast.base.config import CONFIG_NAME
from holdfast.base.errors import ConfigInvalid, HoldfastError
from holdfast.base.units import parse_clock_time, parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Origin = Literal["default", "file", "environment"]
Kind = Literal["text", "count", "duration", "time", "zone"]

_OTHER_TABLES = frozenset({"version", "pool", "key"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing to set.

    Attributes:
        key: Table and name in ``config.toml``: ``serve.listen``.
        kind: What may be written there.
        default: As it would be written there.
        meaning: In words, for ``holdfast config show``.
        secret: Whether it is shown to nobody.
    """

    key: str
    kind: Kind
    default: str
    meaning: str
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that overrides it: ``HOLDFAST_SERVE_LISTEN``."""
        return "HOLDFAST_" + self.key.replace(".", "_").replace("-", "_").upper()


SETTINGS = (
    Setting("site.zone", "zone", "", "time zone of schedules and retention; empty: the machine's"),
    Setting(
        "database.url",
        "text",
        "",
        "postgresql://user@host/name; empty: SQLite in the home",
        secret=True,
    ),
    Setting("serve.listen", "text", "", "address:port for HTTPS; empty: the local socket alone"),
    Setting("serve.certificate", "text", "", "file with the certificate, PEM, for HTTPS"),
    Setting("serve.key", "text", "", "file with the certificate's key, PEM"),
    Setting("serve.machines", "text", "", "address:port for machines that join; empty: none may"),
    Setting(
        "machines.certificate-life", "duration", "7d", "how long a machine's certificate lasts"
    ),
    Setting(
        "machines.heartbeat",
        "duration",
        "5s",
        "how often machines and master say that they are there; silent for three times as long, "
        "one is given up",
    ),
    Setting("login.issuer", "text", "", "URL of an OpenID Connect provider; empty: none"),
    Setting("login.client-id", "text", "", "what that provider calls this site"),
    Setting("login.client-secret", "text", "", "this site's secret there, if any", secret=True),
    Setting("login.claim", "text", "email", "what it says of its users that tells who is who here"),
    Setting("jobs.slots", "count", "2", "jobs that the storage unit takes at once"),
    Setting("jobs.boot-checks", "count", "1", "backups of virtual machines booted at once"),
    Setting("jobs.attempts", "count", "3", "how often a job is tried when trying again may help"),
    Setting("housekeeping.at", "time", "12:00", "when images that no rule keeps are let go"),
    Setting(
        "clock.longest-absence",
        "duration",
        "7d",
        "after a machine was off for longer, nothing is let go until its clock is said to be right",
    ),
    Setting(
        "catalog.protect-after",
        "duration",
        "15m",
        "how long after it was last put into the pool a changed catalog goes there again",
    ),
    Setting("jobs.history", "duration", "730d", "how long ended jobs and their events are kept"),
)
"""In the order in which they are shown."""

BY_KEY = {one.key: one for one in SETTINGS}


@dataclass(frozen=True, slots=True)
class Value:
    """What a setting is set to.

    Attributes:
        setting: Which one.
        text: As it would be written in the file; `Settings` has it as what it means.
        origin: Where that comes from.
    """

    setting: Setting
    text: str
    origin: Origin


class Settings:
    """What every setting of a site is set to."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def values(self) -> list[Value]:
        """Every setting, in order."""
        return [self._values[one.key] for one in SETTINGS]

    def text(self, key: str) -> str:
        """A setting's text; empty where it is not set."""
        return self._values[key].text

    def count(self, key: str) -> int:
        """A setting that counts; at least 1."""
        return int(self.text(key))

    def seconds(self, key: str) -> float:
        """A setting that is a length of time."""
        return parse_duration(self.text(key))

    def zone(self, key: str) -> ZoneInfo | None:
        """A setting that is a time zone; None for the machine's."""
        return ZoneInfo(self.text(key)) if self.text(key) else None


def load(home: Path, environ: Mapping[str, str]) -> Settings:
    """Read the settings of the site at a home directory.

    Args:
        home: Where ``config.toml`` is; without one, the file sets nothing.
        environ: The process's environment.

    Raises:
        ConfigInvalid: Something is set that is no setting, or to what it can't be.
    """
    path = home / CONFIG_NAME
    document: dict[str, object] = {}
    try:
        if path.exists():
            document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"can't read {path}: {error}") from error
    given = dict(_flat(document, path))
    values = {}
    for setting in SETTINGS:
        if environ.get(setting.variable):
            value = Value(setting, environ[setting.variable], "environment")
            _require(value, f"the variable {setting.variable}")
        elif setting.key in given:
            value = Value(setting, given[setting.key], "file")
            _require(value, f"{path}: {setting.key}")
        else:
            value = Value(setting, setting.default, "default")
        values[setting.key] = value
    return Settings(values)


def _flat(document: dict[str, object], path: Path) -> list[tuple[str, str]]:
    found = []
    for table, inside in document.items():
        if table in _OTHER_TABLES:
            continue
        named = inside if isinstance(inside, dict) else {"": inside}
        for name, value in named.items():
            key = f"{table}.{name}".rstrip(".")
            if key not in BY_KEY:
                from difflib import get_close_matches

                near = get_close_matches(key, BY_KEY, n=1)
                hint = f"did you mean '{near[0]}'?" if near else "see 'holdfast config show'"
                raise ConfigInvalid(f"{path}: there is no setting '{key}'", hint)
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise ConfigInvalid(f"{path}: {key} has to be a text or a number")
            found.append((key, str(value)))
    return found


def _require(value: Value, where: str) -> None:
    text, kind = value.text, value.setting.kind
    shown = "its value" if value.setting.secret else f"'{text}'"
    if kind == "count" and not (text.isdecimal() and int(text) > 0):
        raise ConfigInvalid(f"{where}: {shown} is not a number of 1 or more")
    if kind in {"duration", "time"}:
        try:
            parse_duration(text) if kind == "duration" else parse_clock_time(text)
        except HoldfastError as error:
            raise ConfigInvalid(f"{where}: {error.message}", error.hint) from error
    if kind == "zone" and text:
        try:
            ZoneInfo(text)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigInvalid(
                f"{where}: {shown} is not a time zone", "write for example Europe/Berlin"
            ) from error
