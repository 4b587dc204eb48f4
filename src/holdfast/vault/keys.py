"""Key slots: the pool key, wrapped once for each secret that may open the pool.

Must not open pools, and never writes the pool key anywhere unwrapped. See
`docs/formats/key-slots.md`. Invariants: a slot is bound to its pool, its kind and its cost, so
none of them can be exchanged; reading a slot never takes more memory or time than the bounds
here, whoever wrote it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import HoldfastError, IntegrityError, NewerFormat, NotFound, WrongKey
from holdfast.engine import unwrap_key, wrap_key
from holdfast.vault.secrets import KEY_BYTES, KeyFile, Passphrase, PoolKey, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holdfast.engine import Store

PREFIX = "keys/"
FORMAT = "holdfast key slot"
VERSION = 1
KIND_CODES = {"passphrase": 1, "key-file": 2}
SALT_BYTES = 32
NONCE_BYTES = 12
WRAPPED_BYTES = KEY_BYTES + 16
KEY_FILE_INFO = b"holdfast key slot v1: key file"

MAX_SLOT_BYTES = 64 << 10
MAX_SLOTS = 64
MAX_MEMORY_KIB = 1 << 20
MAX_PASSES = 16
MAX_LANES = 16


@dataclass(frozen=True, slots=True)
class Cost:
    """What deriving a key from a passphrase takes (Argon2id, RFC 9106).

    Attributes:
        memory_kib: Memory in KiB.
        passes: Passes over it.
        lanes: Threads that may share the work.
    """

    memory_kib: int
    passes: int
    lanes: int


DEFAULT_COST = Cost(memory_kib=32 << 10, passes=3, lanes=4)
"""For new slots; see docs/adr/0008-the-cost-of-a-passphrase.md."""

_NO_COST = Cost(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Slot:
    """One wrapped pool key, as stored.

    Attributes:
        id: Its name in the store, 32 hexadecimal digits.
        pool_id: The pool it opens, 16 bytes.
        kind: ``passphrase`` or ``key-file``.
        cost: Zeros unless for a passphrase.
    """

    id: str
    pool_id: bytes
    kind: str
    cost: Cost
    salt: bytes
    nonce: bytes
    wrapped: bytes


def new_pool_key() -> bytes:
    """Make a random pool key."""
    return _random(KEY_BYTES)


def add_slot(
    store: Store,
    pool_id: bytes,
    pool_key: bytes,
    secret: Passphrase | KeyFile,
    cost: Cost = DEFAULT_COST,
) -> Slot:
    """Wrap the pool key for one more secret. Durable on return.

    Args:
        store: The pool's store.
        pool_id: 16 bytes.
        pool_key: 32 bytes; the caller has proven that it is the pool's.
        secret: What shall open the pool from now on.
        cost: For a passphrase, how expensive guessing shall be.

    Raises:
        Invalid: The secret is empty or malformed.
        OSError: The slot was not written; safe to retry.
    """
    salt, nonce = _random(SALT_BYTES), _random(NONCE_BYTES)
    slot = wrap(pool_id, pool_key, secret, cost, salt, nonce)
    while not store.put_if_absent(f"{PREFIX}{slot.id}.json", encode(slot)):
        slot = wrap(pool_id, pool_key, secret, cost, salt, nonce)
    return slot


def list_slots(store: Store, pool_id: bytes) -> list[Slot]:
    """Return the slots of this pool that this program understands, by id.

    Raises:
        OSError: The store can't be read; safe to retry.
    """
    return [slot for slot in _readable(store, pool_id) if isinstance(slot, Slot)]


def remove_slot(store: Store, slot_id: str) -> None:
    """Remove a slot: its secret opens the pool no longer. Durable on return.

    Whoever has a copy of the slot and its secret can still derive the key: a secret that became
    known needs a new pool.

    Raises:
        NotFound: There is no such slot.
        OSError: It was not removed; safe to retry.
    """
    key = f"{PREFIX}{slot_id}.json"
    if store.size(key) is None:
        raise NotFound(f"there is no key slot '{slot_id}'")
    store.delete(key)


def unwrap(store: Store, pool_id: bytes, secret: Secret) -> bytes:
    """Return the pool key that a secret unlocks.

    A bare pool key is returned as it is: opening the pool will prove it.

    Raises:
        WrongKey: The secret opens none of the pool's slots.
        IntegrityError: The same, but a damaged slot may be the one it opens.
        NewerFormat: The same, but a slot of a newer format may be the one.
        Invalid: The secret is empty or malformed.
        OSError: The store can't be read; safe to retry.
    """
    if isinstance(secret, PoolKey):
        return secret.key
    kind, material = _kind_and_material(secret)
    return _unwrapped(_readable(store, pool_id), kind, material)


def unwrapping(store: Store, pool_id: bytes, secret: Secret) -> Callable[[], bytes]:
    """Read whatever `unwrap` may need to read, and return the work that is left.

    Returns:
        What derives and unwraps, in whatever thread calls it. It raises what `unwrap` raises of
        a secret that opens nothing.

    Raises:
        Invalid: The secret is empty or malformed.
        OSError: The store can't be read; safe to retry.
    """
    if isinstance(secret, PoolKey):
        return partial(bytes, secret.key)
    kind, material = _kind_and_material(secret)
    return partial(_unwrapped, list(_readable(store, pool_id)), kind, material)


def _unwrapped(candidates: Iterable[Slot | HoldfastError], kind: str, material: bytes) -> bytes:
    tried, others = 0, 0
    unreadable: HoldfastError | None = None
    for slot in candidates:
        if isinstance(slot, HoldfastError):
            unreadable = slot
        elif slot.kind != kind:
            others += 1
        else:
            tried += 1
            pool_key = _opened(slot, material)
            if pool_key is not None:
                return pool_key
    if unreadable is not None:
        raise unreadable
    what = "passphrase" if kind == "passphrase" else "key file"
    if tried:
        raise WrongKey(
            f"the {what} does not open the pool",
            f"it was tried on {tried} key slot(s); a recovery kit opens the pool too",
        )
    if others:
        raise WrongKey(
            f"the pool can't be opened by a {what}: it has {others} key slot(s) of other kinds",
            "use a key file" if kind == "passphrase" else "use the passphrase",
        )
    raise WrongKey(
        "the pool has no key slots",
        "open it with its recovery kit; if its making was cut short, remove it and make it anew",
    )


def wrap(
    pool_id: bytes,
    pool_key: bytes,
    secret: Passphrase | KeyFile,
    cost: Cost,
    salt: bytes,
    nonce: bytes,
) -> Slot:
    """Wrap a pool key with the given salt and nonce, neither of which may be used twice."""
    kind, material = _kind_and_material(secret)
    cost = cost if kind == "passphrase" else _NO_COST
    slot = Slot(_random(16).hex(), pool_id, kind, cost, salt, nonce, b"")
    wrapped = wrap_key(
        pool_key, material, how=_how(slot), salt=salt, nonce=nonce, bound_to=bound_to(slot)
    )
    return Slot(slot.id, pool_id, kind, cost, salt, nonce, wrapped)


def bound_to(slot: Slot) -> bytes:
    """Return what the wrapped key is authenticated with: pool, kind, cost and salt."""
    cost = slot.cost
    return FORMAT.encode("ascii") + struct.pack(
        f"<B16sBIII{SALT_BYTES}s",
        VERSION,
        slot.pool_id,
        KIND_CODES[slot.kind],
        cost.memory_kib,
        cost.passes,
        cost.lanes,
        slot.salt,
    )


def encode(slot: Slot) -> bytes:
    """Write a slot as its JSON text."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "pool": slot.pool_id.hex(),
        "kind": slot.kind,
    }
    if slot.kind == "passphrase":
        cost = slot.cost
        fields["argon2id"] = {
            "memory_kib": cost.memory_kib,
            "passes": cost.passes,
            "lanes": cost.lanes,
        }
    fields["salt"] = slot.salt.hex()
    fields["nonce"] = slot.nonce.hex()
    fields["wrapped"] = slot.wrapped.hex()
    return json.dumps(fields, indent=2).encode("ascii") + b"\n"


def decode(slot_id: str, raw: bytes) -> Slot:
    """Read a slot's JSON text. Anything that is not exactly a slot is refused.

    Raises:
        NewerFormat: Its version or kind is unknown to this program.
        IntegrityError: It is malformed or asks for unreasonable work.
    """
    what = f"key slot '{slot_id}'"
    try:
        fields = json.loads(raw)
        if fields["format"] != FORMAT:
            raise IntegrityError(f"{what} is damaged: it is not a key slot")
        if fields["version"] != VERSION or fields["kind"] not in KIND_CODES:
            raise NewerFormat(
                f"{what} has version {fields['version']} and kind '{fields['kind']}', "
                f"which this program does not know",
                "use a newer Holdfast",
            )
        cost = _NO_COST
        if fields["kind"] == "passphrase":
            cost = Cost(**fields["argon2id"])
        slot = Slot(
            slot_id,
            bytes.fromhex(fields["pool"]),
            fields["kind"],
            cost,
            bytes.fromhex(fields["salt"]),
            bytes.fromhex(fields["nonce"]),
            bytes.fromhex(fields["wrapped"]),
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{what} is damaged: it is not a key slot") from error
    lengths = tuple(map(len, (slot.pool_id, slot.salt, slot.nonce, slot.wrapped)))
    if lengths != (16, SALT_BYTES, NONCE_BYTES, WRAPPED_BYTES):
        raise IntegrityError(f"{what} is damaged: a field has another length")
    if slot.kind == "passphrase":
        _check_cost(what, cost)
    return slot


def _check_cost(what: str, cost: Cost) -> None:
    bounds = (
        ("memory_kib", cost.memory_kib, 8, MAX_MEMORY_KIB),
        ("passes", cost.passes, 1, MAX_PASSES),
        ("lanes", cost.lanes, 1, MAX_LANES),
    )
    for name, value, least, most in bounds:
        if type(value) is not int or not least <= value <= most:
            raise IntegrityError(
                f"{what} asks for {name} {value!r}: it is refused, {least} to {most} is allowed"
            )
    if cost.memory_kib < 8 * cost.lanes:
        raise IntegrityError(f"{what} is damaged: Argon2id needs 8 KiB of memory a lane")


def _readable(store: Store, pool_id: bytes) -> Iterator[Slot | HoldfastError]:
    """Yield the pool's slots by id; those that can't be read as the error that says why."""
    keys = sorted(found for page in store.list(PREFIX) for found in page)
    keys = [(key, size) for key, size in keys if key.endswith(".json")]
    for key, size in keys[:MAX_SLOTS]:
        slot_id = key.removeprefix(PREFIX).removesuffix(".json")
        if size > MAX_SLOT_BYTES:
            yield IntegrityError(f"key slot '{slot_id}' is damaged: it has {size} bytes")
            continue
        try:
            slot = decode(slot_id, store.get(key))
        except FileNotFoundError:
            continue  # removed since it was listed
        except HoldfastError as error:
            yield error
            continue
        if slot.pool_id == pool_id:
            yield slot


def _kind_and_material(secret: Passphrase | KeyFile) -> tuple[str, bytes]:
    if isinstance(secret, Passphrase):
        return "passphrase", secret.encoded()
    return "key-file", secret.read()


def _random(size_bytes: int) -> bytes:
    # Loaded only to make keys and slots: opening a pool, which every command does, needs none.
    import secrets

    return secrets.token_bytes(size_bytes)


def _how(slot: Slot) -> tuple[int, int, int] | bytes:
    """How the key that wraps is made of a secret's bytes."""
    cost = slot.cost
    if slot.kind == "passphrase":
        return cost.memory_kib, cost.passes, cost.lanes
    return KEY_FILE_INFO


def _opened(slot: Slot, material: bytes) -> bytes | None:
    return unwrap_key(
        slot.wrapped,
        material,
        how=_how(slot),
        salt=slot.salt,
        nonce=slot.nonce,
        bound_to=bound_to(slot),
    )
