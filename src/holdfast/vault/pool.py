"""Make and open pools by URL, or on a store that somebody made, and secret.

Must not know how a pool is laid out: that is the engine's part; nor how keys are wrapped: see
`holdfast.vault.keys`. Invariant: a pool that `create_pool` returned has a slot that its secret
opens; header first, then slot, and the header goes again if the slot can't be written.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from holdfast.base.errors import NotAPool, Unreachable, storage_error
from holdfast.vault import keys
from holdfast.vault.backends import open_store, python_store
from holdfast.vault.secrets import KeyFile, Passphrase, PoolKey, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.base.clock import Clock
    from holdfast.engine import Pool, PoolConfig, Store

_HEADER = "pool"
_OF_A_MEDIA_SERVER = "see that 'holdfast media run' is at work there, and that the network is up"


def create_pool(
    url: str,
    *,
    secret: Secret,
    clock: Clock,
    config: PoolConfig | None = None,
    naming: bytes | None = None,
) -> Pool:
    """Make a pool and the first slot that opens it. Durable on return.

    Args:
        url: A directory, made if it is missing, or an object store's URL.
        secret: What shall open the pool. A `PoolKey` becomes the pool's key and gets no slot.
        clock: Says when the pool was made.
        config: Sizes; the engine's defaults if None.
        naming: `Pool.naming` of the pool with which this one shall exchange images: equal data
            has one name in both. None for a pool that names chunks as no other does.

    Raises:
        PoolExists: There is a pool; it is left as it is.
        Invalid: The URL, the secret or the naming is unusable; nothing was written.
        StorageError: The store can't be written.
    """
    from holdfast import engine

    if not isinstance(secret, PoolKey):
        _check(secret)
    pool_key = secret.key if isinstance(secret, PoolKey) else keys.new_pool_key()
    config = engine.PoolConfig() if config is None else config
    with _translated(url):
        store = open_store(url)
        pool = engine.Pool.create(store, pool_key, config, clock.now_ns(), naming=naming)
        if not isinstance(secret, PoolKey):
            slots = python_store(url)
            try:
                keys.add_slot(slots, pool.id, pool_key, secret)
            except BaseException:
                # A pool that nothing opens would only be in the way of the next attempt.
                with contextlib.suppress(OSError):
                    slots.delete(_HEADER)
                raise
    return pool


def open_pool(url: str, *, secret: Secret, cache_dir: Path | None) -> Pool:
    """Open a pool that is there.

    Args:
        url: A directory or an object store's URL.
        secret: What opens one of its slots, or the pool key itself.
        cache_dir: Where the engine may keep copies of index segments; None for nowhere.

    Raises:
        NotAPool: There is none.
        NewerFormat: It is of a newer Holdfast.
        WrongKey: The secret does not open it.
        StorageError: The store can't be read.
    """
    from holdfast import engine

    pool_key = unwrap(url, secret)
    with _translated(url):
        cache = None if cache_dir is None else str(cache_dir)
        return engine.Pool.open(open_store(url), pool_key, cache)


def open_pool_on(store: Store, *, key: PoolKey, cache_dir: Path | None) -> Pool:
    """Open a pool that is there, on a store that no URL names.

    Args:
        store: Used for as long as the pool is.
        key: The key of the pool.
        cache_dir: Where the engine may keep copies of index segments; None for nowhere.

    Raises:
        NotAPool: There is none.
        NewerFormat: It is of a newer Holdfast.
        WrongKey: The key is not this pool's.
        Unreachable: Whoever has the store does not answer.
        StorageError: The store can't be read.
    """
    from holdfast import engine

    place = str(store)
    with _translated(place):
        # The engine tells every failure of a store as one of reading; this tells which it is.
        if store.size(_HEADER) is None:
            raise NotAPool(f"there is no pool at '{place}'")
        return engine.Pool.open(store, key.key, None if cache_dir is None else str(cache_dir))


def peek_pool(url: str) -> bytes:
    """The id of the pool at a place, 16 bytes; needs no key.

    Raises:
        NotAPool: There is none.
        NewerFormat: It is of a newer Holdfast.
        StorageError: The store can't be read.
    """
    with _translated(url):
        return _pool_id(url)


def unwrap(url: str, secret: Secret) -> bytes:
    """Return the key of a pool. Whoever has it can read everything in the pool.

    Raises:
        NotAPool: There is none.
        NewerFormat: It, or the slot, is of a newer Holdfast.
        WrongKey: The secret opens none of its slots.
        StorageError: The store can't be read.
    """
    with _translated(url):
        return keys.unwrap(python_store(url), _pool_id(url), secret)


def unwrapping(url: str, secret: Secret) -> Callable[[], bytes]:
    """Read whatever `unwrap` may need to read, and return the work that is left.

    Raises what `unwrap` raises; of a secret that opens nothing, only the work does.
    """
    with _translated(url):
        return keys.unwrapping(python_store(url), _pool_id(url), secret)


def add_slot(url: str, pool_key: bytes, secret: Passphrase | KeyFile) -> keys.Slot:
    """Let one more secret open a pool. Durable on return.

    Args:
        url: A directory or an object store's URL.
        pool_key: From `unwrap` or a recovery kit; proven before anything is written.
        secret: What shall open the pool from now on.

    Raises:
        NotAPool: There is none.
        WrongKey: The key is not this pool's.
        Invalid: The secret is unusable.
        StorageError: The store can't be written.
    """
    from holdfast import engine

    _check(secret)
    with _translated(url):
        pool = engine.Pool.open(open_store(url), PoolKey(pool_key).key)
        return keys.add_slot(python_store(url), pool.id, pool_key, secret)


def try_writing(url: str) -> bytes:
    """Write and remove an object of no meaning, to see whether that can be done; needs no key.

    Returns:
        The pool's id, 16 bytes.

    Raises:
        NotAPool: There is none.
        StorageError: The store can't be written.
    """
    # Opening a pool, which every command does, needs no randomness.
    from secrets import token_hex

    with _translated(url):
        found = _pool_id(url)
        store = python_store(url)
        key = f"trial-{token_hex(16)}"
        store.put(key, b"")
        store.delete(key)
        return found


def list_slots(url: str) -> list[keys.Slot]:
    """Return the key slots of a pool that this program understands.

    Raises:
        NotAPool: There is none.
        StorageError: The store can't be read.
    """
    with _translated(url):
        return keys.list_slots(python_store(url), _pool_id(url))


def _pool_id(url: str) -> bytes:
    from holdfast import engine

    return engine.Pool.peek(open_store(url))


def _check(secret: Passphrase | KeyFile) -> None:
    """Refuse an unusable secret before anything is written."""
    if isinstance(secret, Passphrase):
        secret.encoded()
    else:
        secret.read()


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn the operating system's errors into those a person reads."""
    try:
        yield
    except OSError as error:
        kind = storage_error(error)
        place = url.split("?", 1)[0]
        hint = _OF_A_MEDIA_SERVER if kind is Unreachable else None
        raise kind(
            f"the pool at '{place}' can't be used: {error.strerror or error}", hint
        ) from error
