"""Every error that Holdfast tells a person about, and the table from code to class.

::

    HoldfastError                       code                exit  retry
    ├── UsageError                      usage                 64  never
    │   ├── Invalid                     invalid               64  never
    │   │   └── PolicyInvalid           policy-invalid        64  never
    │   ├── ImageAmbiguous              image-ambiguous       64  never
    │   ├── KeyReused                   key-reused            64  never
    │   └── TooLarge                    too-large             64  never
    ├── SiteError                       site                   2  never
    │   ├── SiteMissing                 site-missing           2  never
    │   ├── SiteExists                  site-exists            2  never
    │   └── ConfigInvalid               config-invalid         2  never
    ├── PoolError                       pool                   2  never
    │   ├── NotAPool                    not-a-pool             2  never
    │   ├── PoolExists                  pool-exists            2  never
    │   ├── NewerFormat                 newer-format           2  never
    │   ├── WrongKey                    wrong-key              2  never
    │   ├── ClientKeyNeeded             client-key-needed      2  never
    │   └── SecretMissing               secret-missing         2  never
    ├── IntegrityError                  integrity              2  other target
    │   └── ChunkMissing                chunk-missing          2  other target
    ├── NotFound                        not-found              2  never
    │   ├── ImageMissing                image-missing          2  never
    │   ├── PathMissing                 path-missing           2  never
    │   ├── JobMissing                  job-missing            2  never
    │   ├── PolicyMissing               policy-missing         2  never
    │   ├── MachineMissing              machine-missing        2  never
    │   ├── UploadMissing               upload-missing         2  same target
    │   └── ObjectMissing               object-missing         2  other target
    ├── CatalogError                    catalog                2  never
    │   ├── CatalogDamaged              catalog-damaged        2  never
    │   └── DatabaseLost                database-lost          2  same target
    ├── StorageError                    storage                2  same target
    │   ├── InputOutput                 io                     2  same target
    │   ├── NoSpace                     no-space               2  other target
    │   ├── NoPermission                no-permission          2  never
    │   ├── DiskUnreadable              disk-unreadable        2  never
    │   ├── ObjectExists                object-exists          2  never
    │   ├── Unreachable                 unreachable            2  same target
    │   └── TooSlow                     too-slow               2  same target
    ├── AccessError                     access                 2  never
    │   ├── NotAuthenticated            not-authenticated      2  never
    │   ├── Forbidden                   forbidden              2  never
    │   └── TooManyAttempts             too-many-attempts      2  same target
    ├── AlreadyExists                   already-exists         2  never
    ├── EditConflict                    edit-conflict          2  never
    ├── ImageProtected                  image-protected        2  never
    ├── ClockDoubtful                   clock-doubtful         2  never
    ├── CommandFailed                   command-failed         2  same target
    ├── DoesNotBoot                     does-not-boot          2  never
    ├── TargetNotEmpty                  target-not-empty       2  never
    ├── WrongState                      wrong-state            2  never
    ├── WorkerLost                      worker-lost            2  same target
    ├── Fenced                          fenced                 2  same target
    ├── Busy                            busy                   2  same target
    ├── HypervisorError                 hypervisor             2  same target
    │   ├── HypervisorRefused           hypervisor-refused     2  same target
    │   ├── NotQuiesced                 not-quiesced           2  same target
    │   └── SnapshotBroken              snapshot-broken        2  same target
    ├── Unsupported                     unsupported            2  never
    │   └── LibraryMissing              library-missing        2  never
    ├── Cancelled                       cancelled            130  same target
    └── InternalError                   internal               2  never

A code is never reused for another meaning. The engine raises through `from_code`; a test holds
the table against the codes the engine says it can raise. A message names the object and the
numbers; advice goes into ``hint``. Never a secret in either.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from holdfast.base.errors.absent import (
    ImageMissing,
    JobMissing,
    MachineMissing,
    NotFound,
    ObjectMissing,
    PathMissing,
    PolicyMissing,
    UploadMissing,
)
from holdfast.base.errors.acts import (
    AccessError,
    AlreadyExists,
    Busy,
    ClockDoubtful,
    CommandFailed,
    DoesNotBoot,
    EditConflict,
    Fenced,
    Forbidden,
    HypervisorError,
    HypervisorRefused,
    ImageProtected,
    LibraryMissing,
    NotAuthenticated,
    NotQuiesced,
    SnapshotBroken,
    TargetNotEmpty,
    TooManyAttempts,
    Unsupported,
    WorkerLost,
    WrongState,
)
from holdfast.base.errors.places import (
    CatalogDamaged,
    CatalogError,
    ChunkMissing,
    ClientKeyNeeded,
    ConfigInvalid,
    DatabaseLost,
    DiskUnreadable,
    InputOutput,
    IntegrityError,
    NewerFormat,
    NoPermission,
    NoSpace,
    NotAPool,
    ObjectExists,
    PoolError,
    PoolExists,
    SecretMissing,
    SiteError,
    SiteExists,
    SiteMissing,
    StorageError,
    TooSlow,
    Unreachable,
    WrongKey,
)
from holdfast.base.errors.root import (
    EXIT_FAILED,
    EXIT_FINDINGS,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    Cancelled,
    HoldfastError,
    ImageAmbiguous,
    InternalError,
    Invalid,
    KeyReused,
    PolicyInvalid,
    Retry,
    TooLarge,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BY_CODE",
    "EXIT_FAILED",
    "EXIT_FINDINGS",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_USAGE",
    "AccessError",
    "AlreadyExists",
    "Busy",
    "Cancelled",
    "CatalogDamaged",
    "CatalogError",
    "ChunkMissing",
    "ClientKeyNeeded",
    "ClockDoubtful",
    "CommandFailed",
    "ConfigInvalid",
    "DatabaseLost",
    "DiskUnreadable",
    "DoesNotBoot",
    "EditConflict",
    "Fenced",
    "Forbidden",
    "HoldfastError",
    "HypervisorError",
    "HypervisorRefused",
    "ImageAmbiguous",
    "ImageMissing",
    "ImageProtected",
    "InputOutput",
    "IntegrityError",
    "InternalError",
    "Invalid",
    "JobMissing",
    "KeyReused",
    "LibraryMissing",
    "MachineMissing",
    "NewerFormat",
    "NoPermission",
    "NoSpace",
    "NotAPool",
    "NotAuthenticated",
    "NotFound",
    "NotQuiesced",
    "ObjectExists",
    "ObjectMissing",
    "PathMissing",
    "PolicyInvalid",
    "PolicyMissing",
    "PoolError",
    "PoolExists",
    "Retry",
    "SecretMissing",
    "SiteError",
    "SiteExists",
    "SiteMissing",
    "SnapshotBroken",
    "StorageError",
    "TargetNotEmpty",
    "TooLarge",
    "TooManyAttempts",
    "TooSlow",
    "Unreachable",
    "Unsupported",
    "UploadMissing",
    "UsageError",
    "WorkerLost",
    "WrongKey",
    "WrongState",
    "from_code",
    "storage_error",
]

_OF_THE_SYSTEM: dict[int | None, type[StorageError]] = {
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EACCES: NoPermission,
    errno.EPERM: NoPermission,
    errno.EROFS: NoPermission,
    errno.EHOSTUNREACH: Unreachable,
}


def storage_error(error: OSError) -> type[StorageError]:
    """The class that says what the operating system failed of."""
    return _OF_THE_SYSTEM.get(error.errno, InputOutput)


def _tree(root: type[HoldfastError]) -> Iterator[type[HoldfastError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


BY_CODE: dict[str, type[HoldfastError]] = {cls.code: cls for cls in _tree(HoldfastError)}
"""The one table from stable code to class."""


def from_code(code: str, message: str, hint: str | None = None) -> HoldfastError:
    """Make the error that a stable code names; the engine raises through this.

    Args:
        code: One of the codes drawn at the top of this module.
        message: One sentence for a person.
        hint: Advice, or None.

    Returns:
        The error, not yet raised. An unknown code becomes an `InternalError` that names it, so
        that nothing the engine says is ever lost.
    """
    cls = BY_CODE.get(code)
    if cls is None:
        return InternalError(f"{message} (unknown error code '{code}')", hint)
    return cls(message, hint)
