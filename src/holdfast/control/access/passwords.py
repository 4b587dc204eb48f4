"""Passwords: what may be one, how it is kept, how one is compared.

Must not know whose it is. Invariant: comparing takes as long for a user who is not there.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from holdfast.base.errors import Busy, Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_CHARACTERS = 10
MAX_CHARACTERS = 1000

_SALT_BYTES = 16
_HASH_BYTES = 32
_WAITING = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """What comparing a password takes (Argon2id, RFC 9106).

    Attributes:
        memory_kib: Memory, in KiB.
        passes: How often it is gone over.
        lanes: How many threads may do it.
    """

    memory_kib: int = 65_536
    passes: int = 3
    lanes: int = 4


class Passwords:
    """Keeps and compares passwords. Thread-safe; only some comparisons run at a time."""

    def __init__(self, cost: Cost, at_a_time: int = 4) -> None:
        """Prepare.

        Args:
            cost: What a new hash costs; an older one keeps its own.
            at_a_time: Some others wait, and more are sent away, so that many logins take neither
                all memory nor all threads.
        """
        self._cost = cost
        self._turns = threading.BoundedSemaphore(at_a_time)
        self._room = threading.BoundedSemaphore(at_a_time * _WAITING)

    def hash(self, password: str) -> str:
        """What is kept of a password: a PHC string.

        Raises:
            Busy: Too many passwords are being compared.
        """
        with self._turn():
            return self._derivation().derive_phc_encoded(_bytes(password))

    def fits(self, password: str, kept: str | None) -> bool:
        """Whether a password is the one of which this was kept.

        Args:
            password: What somebody gave.
            kept: What `hash` made; None where there is no user or no password, which is False and
                takes as long.

        Raises:
            Busy: Too many passwords are being compared.
        """
        with self._turn():
            if kept is None:
                self._derivation().derive(_bytes(password))
                return False
            try:
                Argon2id.verify_phc_encoded(_bytes(password), kept)
            except InvalidKey:
                return False
            return True

    def is_dated(self, kept: str) -> bool:
        """Whether a hash was made with another cost than new ones are."""
        cost = self._cost
        return f"$m={cost.memory_kib},t={cost.passes},p={cost.lanes}$" not in kept

    def _derivation(self) -> Argon2id:
        return Argon2id(
            salt=secrets.token_bytes(_SALT_BYTES),
            length=_HASH_BYTES,
            iterations=self._cost.passes,
            lanes=self._cost.lanes,
            memory_cost=self._cost.memory_kib,
        )

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._room.acquire(blocking=False):
            raise Busy("too many passwords are being compared", "try again in a moment")
        try:
            with self._turns:
                yield
        finally:
            self._room.release()


def require_good(password: str, user: str) -> None:
    """Refuse a password that is too easy to guess, or too long to hash.

    Length is what counts (NIST SP 800-63B); no rule asks for kinds of characters.

    Raises:
        Invalid: It is so.
    """
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise Invalid(
            f"a password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters",
            "four words that have nothing to do with each other are a good one",
        )
    if user.lower() in password.lower() and len(password) - len(user) < MIN_CHARACTERS:
        raise Invalid("the password is the name of its user and little more", "choose another")
    if len(set(password)) < 5:
        raise Invalid("the password is made of a few characters only", "choose another")


def _bytes(password: str) -> bytes:
    # The same password, however a keyboard composes it.
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
