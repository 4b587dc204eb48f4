"""Errors of where things are kept: sites, pools, the catalog, storage.

Must not know of others: see the package.
"""

from __future__ import annotations

from holdfast.base.errors.root import HoldfastError, Retry


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
