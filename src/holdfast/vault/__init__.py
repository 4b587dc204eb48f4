"""Where backups live: pools, their keys, and the stores beneath them.

Must not know what gets backed up (sources) nor who asked for it (control). The paper that opens a
pool when all else is lost is `holdfast.vault.recovery_kit`, loaded by who needs it.
"""

from holdfast.vault.backends import open_store, python_store
from holdfast.vault.keys import Slot, new_pool_key
from holdfast.vault.pool import (
    add_slot,
    create_pool,
    list_slots,
    open_pool,
    open_pool_on,
    peek_pool,
    try_writing,
    unwrap,
    unwrapping,
)
from holdfast.vault.secrets import KeyFile, Passphrase, PoolKey, Secret

__all__ = [
    "KeyFile",
    "Passphrase",
    "PoolKey",
    "Secret",
    "Slot",
    "add_slot",
    "create_pool",
    "list_slots",
    "new_pool_key",
    "open_pool",
    "open_pool_on",
    "open_store",
    "peek_pool",
    "python_store",
    "try_writing",
    "unwrap",
    "unwrapping",
]
