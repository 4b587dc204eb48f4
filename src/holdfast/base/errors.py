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
    ├── TargetNotEmpty                  target-not-empty       2  never
    ├── WrongState                      wrong-state            2  never
    ├── WorkerLost                      worker-lost            2  same target
    ├── Fenced                          fenced                 2  same target
    ├── Busy                            busy                   2  same target
    ├── HypervisorError                 hypervisor             2  same target
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

import enum
import errno
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_OK = 0
EXIT_FINDINGS = 1
EXIT_FAILED = 2
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130


class Retry(enum.Enum):
    """Whether doing the same again may help."""

    NEVER = "never"
    SAME_TARGET = "same target"
    OTHER_TARGET = "other target"


class HoldfastError(Exception):
    """A promise that could not be kept, in words for a person.

    Attributes:
        code: Stable name of this kind of error, for programs.
        exit_status: What a command ends with when it fails of this.
        retry: Whether doing the same again may help.
        message: One sentence that names the object and the numbers.
        hint: What the person can do about it: the one given, else the `advice` of the class.
    """

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = EXIT_FAILED
    retry: ClassVar[Retry] = Retry.NEVER
    advice: ClassVar[str | None] = None

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.advice

    def __reduce__(self) -> tuple[type[HoldfastError], tuple[str, str | None]]:
        return type(self), (self.message, self.hint)


class UsageError(HoldfastError):
    """The command was given words it does not understand."""

    code = "usage"
    exit_status = EXIT_USAGE
    advice = "'holdfast COMMAND --help' explains a command, with examples"


class Invalid(UsageError):
    """A value is outside of what it may be."""

    code = "invalid"


class PolicyInvalid(Invalid):
    """A policy is not as it has to be.

    Attributes:
        faults: All that is wrong: where, what, and a hint if there is one.
    """

    code = "policy-invalid"
    advice = "'holdfast policy validate FILE' tells all that is wrong"
    faults: tuple[tuple[str, str, str | None], ...] = ()


class ImageAmbiguous(UsageError):
    """A prefix names more than one image."""

    code = "image-ambiguous"


class KeyReused(UsageError):
    """An idempotency key came again with another request."""

    code = "key-reused"
    advice = "make a new key for each act, and repeat a request as it was"


class TooLarge(UsageError):
    """A request is larger than what is taken."""

    code = "too-large"
    advice = "send less at once"


class SiteError(HoldfastError):
    """The embedded site's home directory is not as it must be."""

    code = "site"
    advice = "look at the site's directory, or set HOLDFAST_HOME to another one"


class SiteMissing(SiteError):
    """There is no site at this home directory yet."""

    code = "site-missing"


class SiteExists(SiteError):
    """There is a site at this home directory already."""

    code = "site-exists"


class ConfigInvalid(SiteError):
    """The site's configuration can't be read or makes no sense."""

    code = "config-invalid"


class PoolError(HoldfastError):
    """The pool can't be made or opened."""

    code = "pool"
    advice = "'holdfast pool check' tells what is wrong with a pool"


class NotAPool(PoolError):
    """What the URL names holds no Holdfast pool."""

    code = "not-a-pool"
    advice = "name the directory or bucket that 'holdfast init' made, or make a pool there"


class PoolExists(PoolError):
    """A pool is there already, and is left as it is."""

    code = "pool-exists"
    advice = "choose another place, or join it with 'holdfast init --existing'"


class NewerFormat(PoolError):
    """The pool was written by a newer Holdfast."""

    code = "newer-format"
    advice = "use a Holdfast at least as new as the one that wrote it"


class WrongKey(PoolError):
    """The passphrase or key does not open this pool."""

    code = "wrong-key"
    advice = "give the passphrase or key file of this pool, or use its recovery kit"


class ClientKeyNeeded(PoolError):
    """The data is sealed with a client key, which is not here."""

    code = "client-key-needed"
    advice = "restore it on a machine that has this key: 'holdfast client-key list' tells there"


class SecretMissing(PoolError):
    """No passphrase and no key was given, and nobody can be asked."""

    code = "secret-missing"


class IntegrityError(HoldfastError):
    """Stored bytes are not what was written. Never downgraded to a warning."""

    code = "integrity"
    retry = Retry.OTHER_TARGET
    advice = "see what is affected with 'holdfast verify --read-data'; nothing wrong is restored"


class ChunkMissing(IntegrityError):
    """An image names a chunk that the pool does not hold."""

    code = "chunk-missing"


class NotFound(HoldfastError):
    """What was asked for is not there."""

    code = "not-found"
    advice = "check the spelling"


class ImageMissing(NotFound):
    """No such image in the pool or the catalog."""

    code = "image-missing"
    advice = "'holdfast images' lists what there is"


class PathMissing(NotFound):
    """No such path in an image, or on this machine."""

    code = "path-missing"
    advice = "'holdfast ls IMAGE:PATH' and 'holdfast find' show what there is"


class JobMissing(NotFound):
    """The site has no such job."""

    code = "job-missing"
    advice = "list them with: holdfast jobs list"


class PolicyMissing(NotFound):
    """The site has no such policy."""

    code = "policy-missing"
    advice = "list them with: holdfast policy list"


class MachineMissing(NotFound):
    """The hypervisor has no such virtual machine."""

    code = "machine-missing"
    advice = "see whether it was deleted, or runs on another host"


class UploadMissing(NotFound):
    """The media server has no such upload for who asks, or gave it up."""

    code = "upload-missing"
    retry = Retry.SAME_TARGET
    advice = "run the job again: what was sent is kept, and is not sent twice"


class ObjectMissing(NotFound):
    """The store has no object of this key."""

    code = "object-missing"
    retry = Retry.OTHER_TARGET
    advice = "see what is affected with 'holdfast pool check'"


class CatalogError(HoldfastError):
    """The catalog can't answer."""

    code = "catalog"
    advice = "make it anew from the pool with 'holdfast catalog rebuild'"


class CatalogDamaged(CatalogError):
    """The catalog's database is not readable; it can be rebuilt from the pool."""

    code = "catalog-damaged"
    advice = "make it anew from the pool with 'holdfast catalog rebuild'"


class DatabaseLost(CatalogError):
    """The server of the control database can't be reached."""

    code = "database-lost"
    retry = Retry.SAME_TARGET
    advice = "see that the server runs, and that the database's URL is right"


class StorageError(HoldfastError):
    """The place where data goes, or comes from, failed."""

    code = "storage"
    retry = Retry.SAME_TARGET
    advice = "look at the disk or network that it names, then run the same command again"


class InputOutput(StorageError):
    """The operating system or the network failed to read or write."""

    code = "io"


class NoSpace(StorageError):
    """The target is full."""

    code = "no-space"
    retry = Retry.OTHER_TARGET
    advice = "free some space there, or choose another place"


class NoPermission(StorageError):
    """This user may not do that."""

    code = "no-permission"
    retry = Retry.NEVER
    advice = "run as a user who may, or choose another place"


class DiskUnreadable(StorageError):
    """A virtual disk is not what its format says: damaged, truncated, or of another format."""

    code = "disk-unreadable"
    retry = Retry.NEVER
    advice = "look at its file with: qemu-img check"


class ObjectExists(StorageError):
    """The store has an object of this key already."""

    code = "object-exists"
    retry = Retry.NEVER
    advice = "choose another name or place"


class Unreachable(StorageError):
    """The site's API does not answer."""

    code = "unreachable"
    advice = "see that the site is served, and that its URL is right"


class TooSlow(StorageError):
    """A request did not arrive in the time that it is waited for."""

    code = "too-slow"
    advice = "see what the network between the two machines is like"


class AccessError(HoldfastError):
    """Who asks is not let in."""

    code = "access"
    advice = "ask an administrator of the site"


class NotAuthenticated(AccessError):
    """Nobody knows who asks: no token, or one that is not valid."""

    code = "not-authenticated"
    advice = "log in, or give a token that is valid: HOLDFAST_TOKEN"


class Forbidden(AccessError):
    """Who asks is known, and may not do that."""

    code = "forbidden"
    advice = "ask an administrator of the site for a role, or for clients, that include it"


class TooManyAttempts(AccessError):
    """Too many logins failed; the next has to wait."""

    code = "too-many-attempts"
    retry = Retry.SAME_TARGET
    advice = "wait, then try again"
    wait_s: float | None = None
    """How long, if whoever raises it knows."""


class AlreadyExists(HoldfastError):
    """Something of this name is there already."""

    code = "already-exists"
    advice = "choose another name"


class EditConflict(HoldfastError):
    """Somebody else changed it meanwhile."""

    code = "edit-conflict"
    advice = "look at what it is now, and make your change again"


class ImageProtected(HoldfastError):
    """A hold or a lock keeps an image from what was asked."""

    code = "image-protected"
    advice = "'holdfast images' shows what is held or locked"


class ClockDoubtful(HoldfastError):
    """The clock jumped, or contradicts what is stored: nothing may be judged by it."""

    code = "clock-doubtful"
    advice = "set the clock right, then run the same command again"


class CommandFailed(HoldfastError):
    """What a policy wants run before or after a backup failed.

    Attributes:
        cut_off: Whether it was killed, as it took too long, and could not tidy up.
    """

    cut_off: bool = False

    code = "command-failed"
    retry = Retry.SAME_TARGET
    advice = "what it said is among the events of the job"


class TargetNotEmpty(HoldfastError):
    """A restore would mix with what is in its target already."""

    code = "target-not-empty"
    advice = "choose an empty or new directory"


class WrongState(HoldfastError):
    """What was asked can't be done to something in the state in which it is."""

    code = "wrong-state"
    advice = "look at its state first"


class WorkerLost(HoldfastError):
    """Nothing was heard of a job's worker for too long."""

    code = "worker-lost"
    retry = Retry.SAME_TARGET
    advice = "look whether the machine that did the work is up and can reach the master server"


class Fenced(HoldfastError):
    """This job was declared dead while it worked, and may commit nothing."""

    code = "fenced"
    retry = Retry.SAME_TARGET
    advice = "run the same command again"


class Busy(HoldfastError):
    """Something else is at work on the same thing."""

    code = "busy"
    retry = Retry.SAME_TARGET
    advice = "wait until that is done, then run the same command again"


class HypervisorError(HoldfastError):
    """What runs the virtual machines refused, or failed."""

    code = "hypervisor"
    retry = Retry.SAME_TARGET
    advice = "look at the log of the hypervisor, then run the same command again"


class NotQuiesced(HypervisorError):
    """A guest's file systems could not be brought to rest, and that was asked for."""

    code = "not-quiesced"
    advice = "see that the guest agent runs in the machine, or let the policy do without it"


class SnapshotBroken(HypervisorError):
    """What is read of a machine is no longer the moment at which it was frozen."""

    code = "snapshot-broken"
    advice = "give the scratch directory more room, or run it when the machine writes less"


class Unsupported(HoldfastError):
    """This machine, store or build can't do that."""

    code = "unsupported"
    advice = "use another machine, store or build"


class LibraryMissing(Unsupported):
    """A library that this takes is not installed on this machine."""

    code = "library-missing"
    advice = "install it, then run the same command again"


class Cancelled(HoldfastError):
    """Stopped because somebody asked for it."""

    code = "cancelled"
    exit_status = EXIT_INTERRUPTED
    retry = Retry.SAME_TARGET
    advice = "run the same command again to go on"


class InternalError(HoldfastError):
    """A defect in Holdfast itself."""

    code = "internal"
    advice = "this is a defect: please report it with what you did"


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
