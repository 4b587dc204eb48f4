"""Front door of the Rust data engine.

Everything above imports from here, never from ``holdfast.engine._engine``. The engine has no
policy and no network in it; its errors are classes of `holdfast.base.errors`.
"""

from holdfast.engine._engine import (
    ChangeBatch,
    ClientKey,
    Counters,
    DiskInput,
    DiskSink,
    DiskSource,
    Entry,
    FileReader,
    Finding,
    GarbageResult,
    Image,
    Mount,
    Pool,
    PoolConfig,
    PoolStats,
    PosixStore,
    Receiver,
    RemotePool,
    RestoreResult,
    Run,
    StageCounters,
    TreeWriter,
    VerifyResult,
    WholeTree,
    client_key_of,
    engine_version,
    error_codes,
)
from holdfast.engine.inside import InsideFiles
from holdfast.engine.link import Link
from holdfast.engine.store import Store, StoreSpec

__all__ = [
    "ChangeBatch",
    "ClientKey",
    "Counters",
    "DiskInput",
    "DiskSink",
    "DiskSource",
    "Entry",
    "FileReader",
    "Finding",
    "GarbageResult",
    "Image",
    "InsideFiles",
    "Link",
    "Mount",
    "Pool",
    "PoolConfig",
    "PoolStats",
    "PosixStore",
    "Receiver",
    "RemotePool",
    "RestoreResult",
    "Run",
    "StageCounters",
    "Store",
    "StoreSpec",
    "TreeWriter",
    "VerifyResult",
    "WholeTree",
    "client_key_of",
    "engine_version",
    "error_codes",
]
