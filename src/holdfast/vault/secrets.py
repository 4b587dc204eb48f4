"""What a person or a machine holds to open a pool with.

Must not derive or wrap keys: see `holdfast.vault.keys`. Invariant: none of these shows its
secret when printed.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from holdfast.base.errors import InputOutput, Invalid, NoPermission, PathMissing, SecretMissing

if TYPE_CHECKING:
    from pathlib import Path

KEY_BYTES = 32
"""Length of a pool key, and of the secret in a key file."""

_KEY_FILE_LABEL = "holdfast key file v1"
_MAX_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Words that a person remembers.

    Attributes:
        text: As typed; the same words composed otherwise in Unicode are the same passphrase.
    """

    text: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Passphrase:
        """Read a passphrase out of a file, without the line end after it.

        Raises:
            PathMissing: There is no such file.
            NoPermission: It may not be read.
            InputOutput: It can't be read.
            Invalid: It is empty, larger than 4 KiB or not UTF-8.
        """
        raw = _small_file(path, "passphrase file")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Invalid(f"passphrase file '{path}' is not UTF-8 text") from error
        passphrase = cls(text.removesuffix("\n").removesuffix("\r"))
        if not passphrase.text:
            raise Invalid(f"passphrase file '{path}' is empty")
        return passphrase

    def encoded(self) -> bytes:
        """Return the bytes that key derivation starts from: NFC, UTF-8.

        Raises:
            Invalid: It is empty or has characters that are none.
        """
        if not self.text:
            raise Invalid("the passphrase is empty")
        try:
            return unicodedata.normalize("NFC", self.text).encode("utf-8")
        except UnicodeEncodeError as error:
            raise Invalid("the passphrase is not UTF-8 text") from error


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file that holds a random secret, for machines that open a pool unattended.

    Attributes:
        path: Where it lies.
    """

    path: Path

    def make(self) -> None:
        """Write a new key file that only its owner may read. Durable on return.

        Raises:
            Invalid: There is a file already; it is left alone.
            OSError: It can't be written.
        """
        import secrets

        line = f"{_KEY_FILE_LABEL}: {secrets.token_hex(KEY_BYTES)}\n"
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise Invalid(
                f"'{self.path}' exists already", "choose another name for the new key file"
            ) from error
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(line)
            file.flush()
            os.fsync(handle)
        parent = os.open(self.path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def read(self) -> bytes:
        """Read the 32 secret bytes.

        Raises:
            SecretMissing: There is no such file.
            NoPermission: It may not be read.
            InputOutput: It can't be read.
            Invalid: It is not a key file.
        """
        try:
            raw = _small_file(self.path, "key file")
        except PathMissing as error:
            raise SecretMissing(error.message, error.hint) from error
        label, _, digits = raw.decode("ascii", "replace").strip().partition(": ")
        try:
            secret = bytes.fromhex(digits)
        except ValueError:
            secret = b""
        if label != _KEY_FILE_LABEL or len(secret) != KEY_BYTES:
            raise Invalid(
                f"'{self.path}' is not a Holdfast key file",
                f"it has one line, '{_KEY_FILE_LABEL}: ' and 64 hexadecimal digits",
            )
        return secret


@dataclass(frozen=True, slots=True)
class PoolKey:
    """The pool key itself, as a recovery kit holds it.

    Attributes:
        key: 32 bytes.
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise Invalid(f"a pool key has {KEY_BYTES} bytes, not {len(self.key)}")


Secret: TypeAlias = Passphrase | KeyFile | PoolKey
"""Whatever opens a pool."""


def _small_file(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise PathMissing(f"there is no {what} '{path}'") from error
    except PermissionError as error:
        raise NoPermission(f"may not read the {what} '{path}'") from error
    except OSError as error:
        raise InputOutput(f"can't read the {what} '{path}': {error.strerror}") from error
    if len(raw) > _MAX_FILE_BYTES:
        raise Invalid(f"{what} '{path}' is larger than {_MAX_FILE_BYTES} bytes")
    return raw
