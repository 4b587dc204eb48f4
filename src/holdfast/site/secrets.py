"""What unlocks the site's pool: a passphrase, a passphrase file or a key file.

Must not prompt: asking is the face's part, handed in. Never keeps or logs a secret. Invariant: a
key file that is made here is readable by its owner alone before a byte is in it.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid, NoPermission, PathMissing, SecretMissing
from holdfast.vault import KeyFile, Passphrase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.base.config import KeySource, SiteConfig
    from holdfast.vault import Secret

PASSPHRASE_FILE_VARIABLE = "HOLDFAST_PASSPHRASE_FILE"  # noqa: S105 - a name, no secret
KEY_FILE_NAME = "pool.key"
_KEY_FILE_BYTES = 32
_LONGEST_PASSPHRASE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a passphrase may come from in this process.

    Attributes:
        passphrase_file: A file that holds it, if one was named.
        ask: Asks a person for it; None when there is nobody to ask. Its argument says what for.
    """

    passphrase_file: Path | None = None
    ask: Callable[[str], str] | None = None

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str],
        passphrase_file: Path | None = None,
        ask: Callable[[str], str] | None = None,
    ) -> SecretSource:
        """Take the file that was named on the command line, else the one of the environment."""
        named = environ.get(PASSPHRASE_FILE_VARIABLE)
        if passphrase_file is None and named:
            passphrase_file = Path(named)
        return cls(passphrase_file, ask)


@dataclass(frozen=True, slots=True)
class ChosenSecret:
    """A secret, and what the configuration is to say about it."""

    secret: Secret
    source: KeySource
    path: Path | None


def choose(home: Path, source: SecretSource) -> ChosenSecret:
    """Choose how a new site unlocks its pool.

    A passphrase file that was named, else a person's passphrase if one can be asked, else a key
    file in the home directory, made if it is not there.

    Raises:
        Invalid: The passphrase is empty or too long.
        PathMissing: The passphrase file is not there.
        NoPermission: It may not be read.
    """
    if source.passphrase_file is not None:
        path = source.passphrase_file.absolute()
        return ChosenSecret(Passphrase(read_passphrase(path)), "passphrase-file", path)
    if source.ask is not None:
        text = source.ask("new passphrase of the pool")
        return ChosenSecret(Passphrase(_checked(text, "the passphrase")), "passphrase", None)
    path = home / KEY_FILE_NAME
    _make_key_file(path)
    return ChosenSecret(KeyFile(path), "key-file", path)


def unlock(config: SiteConfig, source: SecretSource) -> Secret:
    """Find the secret of a site that exists.

    A passphrase file that is named in this process goes before what the configuration says.

    Raises:
        SecretMissing: The site wants a passphrase and there is nobody to ask, or its key file
            is gone.
        PathMissing: The passphrase file is not there.
        NoPermission: It may not be read.
    """
    if source.passphrase_file is not None:
        return Passphrase(read_passphrase(source.passphrase_file))
    if config.key_source == "key-file" and config.key_path is not None:
        if not config.key_path.exists():
            raise SecretMissing(
                f"the key file {config.key_path} is gone",
                "put it back, or join the pool anew: holdfast init --existing --recovery-kit FILE",
            )
        return KeyFile(config.key_path)
    if config.key_source == "passphrase-file" and config.key_path is not None:
        return Passphrase(read_passphrase(config.key_path))
    if source.ask is None:
        raise SecretMissing(
            "the pool wants a passphrase, and there is no terminal to ask on",
            f"set {PASSPHRASE_FILE_VARIABLE} to a file that holds it",
        )
    return Passphrase(_checked(source.ask("passphrase of the pool"), "the passphrase"))


def read_passphrase(path: Path) -> str:
    """Read the first line of a passphrase file.

    Raises:
        PathMissing: It is not there.
        NoPermission: It may not be read.
        Invalid: It is empty, too long or not text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_PASSPHRASE_BYTES + 2)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PathMissing(
            f"there is no passphrase file {path}", "check the spelling, or make it"
        ) from error
    except PermissionError as error:
        raise NoPermission(f"may not read the passphrase file {path}") from error
    except OSError as error:
        raise Invalid(f"can't read the passphrase file {path}: {error.strerror}") from error
    line = content.split(b"\n", 1)[0].rstrip(b"\r")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"the passphrase file {path} is not UTF-8 text") from error
    return _checked(text, f"the passphrase file {path}")


def _checked(text: str, what: str) -> str:
    if not text:
        raise Invalid(f"{what} is empty", "a passphrase has at least one character")
    if len(text.encode("utf-8", "surrogateescape")) > _LONGEST_PASSPHRASE_BYTES:
        raise Invalid(f"{what} is longer than {_LONGEST_PASSPHRASE_BYTES} bytes")
    return text


def _make_key_file(path: Path) -> None:
    """Make a key file unless an earlier attempt made one; durable on return."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_hex(_KEY_FILE_BYTES).encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())
