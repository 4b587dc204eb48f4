"""What unlocks the site's pool: a passphrase, a passphrase file or a key file.

Must not prompt: asking is the face's part, handed in. Invariant: no secret is ever written
anywhere but into a new key file of the vault's making.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import InputOutput, Invalid, NoPermission, SecretMissing
from holdfast.vault import KeyFile, Passphrase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.base.config import KeySource, SiteConfig
    from holdfast.vault import Secret

PASSPHRASE_FILE_VARIABLE = "HOLDFAST_PASSPHRASE_FILE"  # noqa: S105 - a name, no secret
KEY_FILE_NAME = "pool.key"


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

    secret: Passphrase | KeyFile
    source: KeySource
    path: Path | None


def choose(home: Path, source: SecretSource, *, new: bool) -> ChosenSecret:
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
        return ChosenSecret(_read_passphrase(path), "passphrase-file", path)
    if source.ask is not None:
        what = "new passphrase of the pool" if new else "passphrase of the pool"
        return ChosenSecret(_asked(source.ask, what), "passphrase", None)
    key_file = KeyFile(home / KEY_FILE_NAME)
    # One that an earlier attempt left behind is as good as a new one.
    if new and not key_file.path.exists():
        key_file.make()
    if not key_file.path.exists():
        raise SecretMissing(
            "nothing was given that opens the pool",
            "give --passphrase-file or --recovery-kit, or put the pool's key file at "
            f"{key_file.path}",
        )
    return ChosenSecret(key_file, "key-file", key_file.path)


def derives_unasked(config: SiteConfig, source: SecretSource) -> bool:
    """Tell whether `unlock` finds a passphrase in a file: a key is derived, and nobody asked."""
    return source.passphrase_file is not None or config.key_source == "passphrase-file"


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
        return _read_passphrase(source.passphrase_file)
    if config.key_source == "key-file" and config.key_path is not None:
        if not config.key_path.exists():
            raise SecretMissing(
                f"the key file {config.key_path} is gone",
                "put it back, or join the pool anew: holdfast init --existing --recovery-kit FILE",
            )
        return KeyFile(config.key_path)
    if config.key_source == "passphrase-file" and config.key_path is not None:
        return _read_passphrase(config.key_path)
    if source.ask is None:
        raise SecretMissing(
            "the pool wants a passphrase, and there is no terminal to ask on",
            f"set {PASSPHRASE_FILE_VARIABLE} to a file that holds it",
        )
    return _asked(source.ask, "passphrase of the pool")


def _read_passphrase(path: Path) -> Passphrase:
    try:
        return Passphrase.read(path)
    except PermissionError as error:
        raise NoPermission(f"may not read the passphrase file '{path}'") from error
    except OSError as error:
        raise InputOutput(f"can't read '{path}': {error.strerror}") from error


def _asked(ask: Callable[[str], str], what: str) -> Passphrase:
    text = ask(what)
    if not text:
        raise Invalid("the passphrase is empty", "it has at least one character")
    return Passphrase(text)
