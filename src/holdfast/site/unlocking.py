"""Begin to derive the key of a site's pool, before the site itself is loaded.

Must not load more than that takes: what comes after it is loaded meanwhile. Invariant: nothing is
written, nobody is asked, and no network is used, since the words of the command may turn out wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.meanwhile import Meanwhile
from holdfast.site import places, secrets
from holdfast.vault import unwrapping

if TYPE_CHECKING:
    from holdfast.base.config import SiteConfig
    from holdfast.site.secrets import SecretSource


def begin(config: SiteConfig, source: SecretSource) -> Meanwhile[bytes] | None:
    """Begin, if a passphrase that is in a file opens a pool on a disk of this machine.

    Returns:
        The key, or what it failed of; None where nothing was begun.

    Raises:
        HoldfastError: What opening the pool would raise as well: there is none, or no such file.
    """
    near = places.is_directory_place(config.pool_url)
    if not near or not secrets.derives_unasked(config, source):
        return None
    return Meanwhile(unwrapping(config.pool_url, secrets.unlock(config, source)))
