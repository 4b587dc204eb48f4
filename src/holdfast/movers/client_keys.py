"""The client keys that a machine has: made here, brought here, found by name or by id.

Must not send one anywhere. Invariants: a key's file is readable by its owner alone; a key that is
there is never replaced; what is read is exactly what was written, or an error that says where it
is wrong.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    AlreadyExists,
    ClientKeyNeeded,
    ConfigInvalid,
    Invalid,
    NoPermission,
    storage_error,
)
from holdfast.base.files import write_whole
from holdfast.base.ids import PLAIN_NAME_HINT, is_plain_name
from holdfast.engine import ClientKey

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY = "client-keys"
KEY_BYTES = 32
_SUFFIX = ".key"
_LABEL = "holdfast client key v1"
_LINE_BYTES = 4
_ID = re.compile(r"[0-9a-f]{32}")
_WHOLE = re.compile(rf"^{_LABEL}: ([0-9a-f]{{64}})\s*$", re.MULTILINE)
_GROUPS = re.compile(
    r"^\s*(\d{1,2})[ \t]+([0-9a-f]{4})[ \t]*([0-9a-f]{4})[ \t]+([0-9a-f]{2})\s*$",
    re.MULTILINE | re.IGNORECASE,
)
_NAMED = re.compile(r"^Key\s+([0-9a-f]{32})\s*$", re.MULTILINE)
_MOST_TEXT = 64 << 10


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A client key of this machine.

    Attributes:
        name: What people call it here.
        id: 32 hexadecimal digits; the same wherever the key is.
        secret: The key itself, 32 bytes.
    """

    name: str
    id: str
    secret: bytes = field(repr=False)

    @property
    def key(self) -> ClientKey:
        """For the engine."""
        return ClientKey(self.secret)

    def text(self) -> str:
        """The key to be printed or carried to another machine; `read_text` reads it."""
        return _TEXT.format(name=self.name, id=self.id, lines="\n".join(_lines(self.secret)))


class ClientKeys:
    """The client keys of one machine's home."""

    def __init__(self, home: Path) -> None:
        """Look at nothing yet.

        Args:
            home: The machine's home directory.
        """
        self._directory = home / DIRECTORY

    def all(self) -> list[StoredKey]:
        """All keys, by name.

        Raises:
            ConfigInvalid: A file holds no key.
            NoPermission: This user may not read one.
        """
        try:
            files = sorted(self._directory.glob(f"*{_SUFFIX}"))
            return [
                _stored(file.name.removesuffix(_SUFFIX), _secret_in(file, _owner_only(file)))
                for file in files
                if is_plain_name(file.name.removesuffix(_SUFFIX))
            ]
        except PermissionError as error:
            raise NoPermission(
                f"may not read {error.filename}", "run as the user whose keys they are"
            ) from error
        except OSError as error:
            raise storage_error(error)(f"can't read {self._directory}: {error.strerror}") from error

    def find(self, wanted: str) -> StoredKey:
        """A key by its name or its id.

        Raises:
            ClientKeyNeeded: It is not here.
            ConfigInvalid: A file holds no key.
        """
        for one in self.all():
            if wanted in {one.name, one.id}:
                return one
        raise ClientKeyNeeded(
            f"this machine has no client key '{wanted}'",
            f"bring it here: 'holdfast client-key export {wanted}' where it is, then here "
            "'holdfast client-key import NAME'; to make a new one: holdfast client-key create NAME",
        )

    def create(self, name: str) -> StoredKey:
        """Make a key; durable on return.

        Raises:
            Invalid: It can't be called so.
            AlreadyExists: A key is called so.
            StorageError: The home can't be written.
        """
        return self.add(name, secrets.token_bytes(KEY_BYTES))

    def add(self, name: str, secret: bytes) -> StoredKey:
        """Keep a key; durable on return.

        Raises:
            Invalid: It can't be called so.
            AlreadyExists: A key is called so, or it is here under another name.
            StorageError: The home can't be written.
        """
        if not is_plain_name(name) or _ID.fullmatch(name):
            raise Invalid(f"'{name}' can't be the name of a client key", PLAIN_NAME_HINT)
        made = _stored(name, secret)
        for one in self.all():
            if one.name == name and one.id != made.id:
                raise AlreadyExists(
                    f"there is a client key '{name}' already, {one.id}", "choose another name"
                )
            if one.id == made.id:
                raise AlreadyExists(f"client key {one.id} is here already, as '{one.name}'")
        file = self._directory / f"{name}{_SUFFIX}"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(file, f"{_LABEL}: {secret.hex()}\n".encode())
        except OSError as error:
            raise storage_error(error)(f"can't write {file}: {error.strerror}") from error
        return made


def read_text(text: str) -> bytes:
    """The key out of what `StoredKey.text` wrote, or out of a key's file.

    Raises:
        Invalid: It is neither, or a digit is wrong: the message says in which line.
    """
    if len(text) > _MOST_TEXT:
        raise Invalid(f"a client key has a few hundred characters, not {len(text)}")
    whole = _WHOLE.search(text)
    if whole is not None:
        return bytes.fromhex(whole[1])
    found: dict[int, tuple[bytes, str]] = {}
    for number, first, second, check in _GROUPS.findall(text):
        found.setdefault(int(number), (bytes.fromhex(first + second), check.lower()))
    wanted = range(1, KEY_BYTES // _LINE_BYTES + 1)
    missing = [number for number in wanted if number not in found]
    if missing:
        lines = ", ".join(map(str, missing))
        raise Invalid(
            f"the client key can't be read: it has no line {lines}",
            "each of its 8 lines is a number, two groups of 4 digits and a check of 2",
        )
    for number in wanted:
        part, check = found[number]
        if _check(number, part) != check:
            raise Invalid(
                f"the client key can't be read: a digit of line {number} is wrong",
                "compare the line with where it is written",
            )
    secret = b"".join(found[number][0] for number in wanted)
    named = _NAMED.search(text)
    if named is not None and named[1] != ClientKey(secret).id:
        raise Invalid(
            f"the lines are those of client key {ClientKey(secret).id}, not of {named[1]}",
            "compare them with where they are written",
        )
    return secret


def _stored(name: str, secret: bytes) -> StoredKey:
    return StoredKey(name, ClientKey(secret).id, secret)


def _owner_only(file: Path) -> str:
    """What a key's file holds, if nobody else may read it."""
    with file.open(encoding="ascii", errors="replace") as opened:
        mode = os.fstat(opened.fileno()).st_mode
        if mode & 0o077:
            raise ConfigInvalid(
                f"others than its owner may read {file} (mode {mode & 0o777:o})",
                f"see who had it meanwhile, then: chmod 600 {file}",
            )
        return opened.read(_MOST_TEXT)


def _secret_in(file: Path, text: str) -> bytes:
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        raise ConfigInvalid(f"{file} holds no client key", "bring it back from where it is kept")
    return bytes.fromhex(whole[1])


def _lines(secret: bytes) -> list[str]:
    parts = [secret[at : at + _LINE_BYTES] for at in range(0, KEY_BYTES, _LINE_BYTES)]
    return [
        f"    {number}  {part.hex(' ', 2)}  {_check(number, part)}"
        for number, part in enumerate(parts, 1)
    ]


def _check(number: int, part: bytes) -> str:
    return hashlib.sha256(b"%s %d " % (_LABEL.encode(), number) + part).hexdigest()[:2]


_TEXT = """\
HOLDFAST CLIENT KEY

Whoever holds this page can read all that was backed up with this key, and
without the key nobody can: not the site, and not you. Print it, and keep it
away from the machines that it protects.

Name    {name}
Key     {id}

{lines}

The last two digits of each line check the others.

On another machine, with this page in a file there:

    holdfast client-key import {name} FILE
"""
