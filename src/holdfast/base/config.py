"""Where the embedded site lives, and what its ``config.toml`` says.

Must not open pools or read secrets: a secret is only named here by where it is. Invariant: a
configuration that was loaded is complete and of a version this program knows.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast.base.errors import ConfigInvalid, NewerFormat, NoPermission, SiteMissing
from holdfast.base.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_VERSION = 1
CONFIG_NAME = "config.toml"

KeySource = Literal["passphrase", "passphrase-file", "key-file"]
_KEY_SOURCES: tuple[KeySource, ...] = ("passphrase", "passphrase-file", "key-file")


def default_home(environ: Mapping[str, str], user_id: int, home: Path) -> Path:
    """Name the home directory of the embedded site.

    Args:
        environ: The process's environment.
        user_id: Whose process it is.
        home: That user's own home directory.

    Returns:
        ``HOLDFAST_HOME`` if set, else ``/var/lib/holdfast`` for root, else ``holdfast`` in the
        XDG data directory. Always absolute.
    """
    named = environ.get("HOLDFAST_HOME")
    if named:
        return Path(named).expanduser().absolute()
    if user_id == 0:
        return Path("/var/lib/holdfast")
    data = environ.get("XDG_DATA_HOME", "")
    # The XDG specification has relative values ignored.
    base = Path(data) if data.startswith("/") else home / ".local" / "share"
    return base / "holdfast"


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """What ``config.toml`` says.

    Attributes:
        pool_url: Where the pool is: ``file:///…``, ``s3://…``.
        pool_id: The pool's id, 32 hexadecimal digits; a pool that has another id is refused.
        key_source: How the pool key is unlocked.
        key_path: The passphrase file or key file, None for a passphrase that is asked for.
    """

    pool_url: str
    pool_id: str
    key_source: KeySource
    key_path: Path | None = None


def load(home: Path) -> SiteConfig:
    """Read the configuration of the site at a home directory.

    Raises:
        SiteMissing: There is none.
        NoPermission: This user may not read it.
        NewerFormat: A newer Holdfast wrote it.
        ConfigInvalid: It can't be understood.
    """
    path = home / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SiteMissing(
            f"there is no Holdfast site at {home}",
            "make one with 'holdfast init', or set HOLDFAST_HOME to where yours is",
        ) from error
    except PermissionError as error:
        raise NoPermission(
            f"may not read {path}", "run as the user who made the site, or set HOLDFAST_HOME"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"{path} is not text", "restore it, or run 'holdfast init'") from error
    except OSError as error:
        raise ConfigInvalid(f"can't read {path}: {error.strerror}") from error
    try:
        return _parse(tomllib.loads(text), path)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path} is not TOML: {error}", "correct that line") from error


def save(home: Path, config: SiteConfig) -> None:
    """Write the configuration, whole or not at all; durable on return.

    Raises:
        OSError: The home directory can't be written.
    """
    lines = [
        "# The embedded Holdfast site of this directory.",
        f"version = {CONFIG_VERSION}",
        "",
        "[pool]",
        f"url = {_quoted(config.pool_url)}",
        f"id = {_quoted(config.pool_id)}",
        "",
        "[key]",
        "# passphrase (asked for, or HOLDFAST_PASSPHRASE_FILE), passphrase-file or key-file",
        f"source = {_quoted(config.key_source)}",
    ]
    if config.key_path is not None:
        lines.append(f"path = {_quoted(str(config.key_path))}")
    write_whole(home / CONFIG_NAME, ("\n".join(lines) + "\n").encode())


def _parse(document: dict[str, object], path: Path) -> SiteConfig:
    version = document.get("version")
    if not isinstance(version, int):
        raise ConfigInvalid(f"{path} does not say which version it is", "add 'version = 1'")
    if version > CONFIG_VERSION:
        raise NewerFormat(
            f"{path} is of version {version}; this Holdfast knows {CONFIG_VERSION}",
            "use the newer Holdfast that wrote it",
        )
    key_source = _text(document, "key", "source", path)
    if key_source not in _KEY_SOURCES:
        known = ", ".join(_KEY_SOURCES)
        raise ConfigInvalid(f"{path}: key.source is '{key_source}'", f"it may be one of {known}")
    source: KeySource = key_source
    key_path = None if source == "passphrase" else Path(_text(document, "key", "path", path))
    return SiteConfig(
        pool_url=_text(document, "pool", "url", path),
        pool_id=_text(document, "pool", "id", path),
        key_source=source,
        key_path=key_path,
    )


def _text(document: dict[str, object], table: str, name: str, path: Path) -> str:
    inside = document.get(table)
    value = inside.get(name) if isinstance(inside, dict) else None
    if not isinstance(value, str) or not value:
        raise ConfigInvalid(f"{path} lacks {table}.{name}", f"add '{name} = …' under [{table}]")
    return value


def toml_text(document: Mapping[str, int | str | list[str]]) -> str:
    """A flat TOML document, a line for each value."""
    lines = []
    for name, value in document.items():
        if isinstance(value, list):
            shown = "[" + ", ".join(_quoted(one) for one in value) + "]"
        else:
            shown = str(value) if isinstance(value, int) else _quoted(value)
        lines.append(f"{name} = {shown}\n")
    return "".join(lines)


def _quoted(text: str) -> str:
    """Write a TOML basic string."""
    escaped = []
    for character in text:
        if character in ('"', "\\"):
            escaped.append("\\" + character)
        elif character < " " or character == "\x7f":
            escaped.append(f"\\u{ord(character):04x}")
        else:
            escaped.append(character)
    return '"' + "".join(escaped) + '"'
