"""What the engine asks of an object store that is written in Python.

Must not implement one: see ``holdfast.vault.backends``. Invariant of every implementation: an
object is visible under its key whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator


class Store(Protocol):
    """Objects under ASCII keys. Thread-safe.

    A key that is absent raises `FileNotFoundError`, unless said otherwise; every other failure
    raises `OSError`.
    """

    def get(self, key: str) -> bytes:
        """Read a whole object."""
        ...

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Read exactly ``length`` bytes; an object too short is an `OSError` with ``EBADMSG``."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing one of the same key. Atomic; durable on return."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless the key is taken. Atomic. False if it was taken."""
        ...

    def size(self, key: str) -> int | None:
        """Size of an object in bytes, None if it is absent."""
        ...

    def list(self, prefix: str) -> Iterator[list[tuple[str, int]]]:
        """Pages of (key, size in bytes) below a prefix that ends with ``/``."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is absent is fine."""
        ...


StoreSpec: TypeAlias = str | Store
"""Where a pool is: a directory (the engine's own POSIX store) or a `Store`."""
