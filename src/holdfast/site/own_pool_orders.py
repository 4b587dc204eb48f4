"""What a master can order of a media server about its pools, and is told of them.

Must not touch a disk: see `own_pools` and `shared_pools`. Invariant: a key comes in an order, and
goes nowhere else.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from holdfast.base.errors import Invalid
from holdfast.engine import PoolConfig
from holdfast.site.shared_pools import SharedPool
from holdfast.vault import PoolKey
from holdfast.wire.fields import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.site.own_pools import OwnPools

MOST_SHARED: Final = 1000
NAMING_BYTES: Final = 128
_SIZES: Final = frozenset({"chunk_min", "chunk_avg", "chunk_max", "block_bytes", "pack_bytes"})


def answers(pools: OwnPools) -> Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    """The orders, by their words."""

    def make(order: dict[str, Any]) -> dict[str, Any]:
        given = Reader(order, "an order to make a pool")
        naming = given.maybe_text("naming")
        made = pools.make(
            given.text("path"),
            _key(given.text("key")),
            None if naming is None else _bytes(naming, NAMING_BYTES, "naming"),
            _config(given),
        )
        return {"answer": "make-pool", "pool": made}

    def open_(order: dict[str, Any]) -> dict[str, Any]:
        given = Reader(order, "an order to open a pool")
        pool = given.text("pool")
        pools.open(pool, _key(given.text("key")), given.maybe_text("path"))
        return {"answer": "open-pool", "pool": pool}

    def forget(order: dict[str, Any]) -> dict[str, Any]:
        pool = Reader(order, "an order to let go of a pool").text("pool")
        pools.forget(pool)
        return {"answer": "forget-pool", "pool": pool}

    return {"make-pool": make, "open-pool": open_, "forget-pool": forget}


def told(pools: OwnPools) -> dict[str, Any]:
    """How they are, for the master."""
    standing = pools.standing()
    return {
        "own": list(standing.there),
        "open": list(standing.open),
        "problems": dict(standing.problems),
    }


def keys_in(answer: Reader) -> dict[str, PoolKey]:
    """The keys of pools that a master tells; none if it tells none."""
    given = answer.maybe_record("keys") or {}
    return {str(pool): _key(key) for pool, key in given.items()}


def shared_in(answer: Reader) -> dict[str, SharedPool] | None:
    """The pools that all reach, of which a master tells; None if it tells nothing of them."""
    if not answer.has("shared"):
        return None
    found = {}
    for one in answer.records("shared", MOST_SHARED):
        found[one.text("pool")] = SharedPool(one.text("place"), _key(one.text("key")))
    return found


def _config(given: Reader) -> PoolConfig | None:
    sizes = given.counts("config")
    if not sizes:
        return None
    unknown = sorted(set(sizes) - _SIZES)
    if unknown:
        raise Invalid(f"a pool has no '{unknown[0][:40]}'", "it has " + ", ".join(sorted(_SIZES)))
    try:
        return PoolConfig(**sizes)
    except OverflowError as error:
        raise Invalid("a size of a pool is larger than any") from error


def _key(text: object) -> PoolKey:
    return PoolKey(_bytes(text, 32, "key"))


def _bytes(text: object, length: int, what: str) -> bytes:
    """Never shows what it was given."""
    try:
        found = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != length:
        raise Invalid(f"the '{what}' of a pool is not {length} bytes in base64")
    return found
