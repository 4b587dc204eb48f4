"""Where a pool's objects lie, by URL.

Must not know what a pool is. The object store client is imported only when a URL asks for it:
an agent with a local pool does not have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from holdfast.base.errors import Invalid, Unsupported
from holdfast.vault.backends.directory import DirectoryStore

if TYPE_CHECKING:
    from holdfast.engine import Store, StoreSpec

__all__ = ["open_store", "python_store"]

_OBJECT_SCHEMES = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "memory"})


def open_store(url: str) -> StoreSpec:
    """Open the store that a URL names, as the engine wants it.

    Args:
        url: A directory's path, ``file:///path``, or the URL of an object store: see
            `holdfast.vault.backends.object.ObjectStore.from_url`.

    Returns:
        An absolute path for a directory, which the engine serves natively; else a store object.

    Raises:
        Invalid: The URL is of no known kind or malformed.
        Unsupported: The object store client is not installed.
    """
    if not url or "\0" in url:
        raise Invalid("a pool needs a directory or a URL", "for example /srv/pool or s3://bucket")
    if "://" not in url:
        return str(Path(url).absolute())
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise Invalid(f"'{url}' names no directory", "write file:///absolute/path")
        return unquote(parts.path)
    if parts.scheme not in _OBJECT_SCHEMES:
        raise Invalid(
            f"'{parts.scheme}://' is no kind of store",
            "use a directory, or a URL that begins with s3://, gs:// or az://",
        )
    if not parts.netloc:
        raise Invalid(f"'{url}' names no bucket", f"write {parts.scheme}://bucket/prefix")
    try:
        from holdfast.vault.backends.object import ObjectStore
    except ModuleNotFoundError as error:
        raise Unsupported(
            f"'{parts.scheme}://' needs the object store client, which is not installed",
            "install holdfast[object]",
        ) from error
    return ObjectStore.from_url(url)


def python_store(url: str) -> Store:
    """Open the store that a URL names as a Python object, also for a directory.

    For the vault's own small objects. Raises what `open_store` raises.
    """
    store = open_store(url)
    return DirectoryStore(store) if isinstance(store, str) else store
