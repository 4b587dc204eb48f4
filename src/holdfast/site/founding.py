"""Make the home directory of a site, and the pool that it begins with.

Must not write the configuration: that is the site's. Invariant: a configuration that is handed out
is of a pool that is there, and that its secret opens.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast.base import config as site_config
from holdfast.base.config import SiteConfig
from holdfast.base.errors import InputOutput, NoPermission, SiteExists
from holdfast.base.ids import pool_id
from holdfast.site import places, secrets
from holdfast.vault import PoolKey, add_slot, create_pool, open_pool

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.base.clock import Clock
    from holdfast.site.secrets import SecretSource


def new(home: Path, pool_url: str | None, source: SecretSource, clock: Clock) -> SiteConfig:
    """Make a pool for a new site; see `Site.create`."""
    url = _prepare(home, pool_url)
    places.require_room_for_pool(url)
    chosen = secrets.choose(home, source, new=True)
    pool = create_pool(url, secret=chosen.secret, clock=clock)
    return SiteConfig(url, pool_id(pool.id), chosen.source, chosen.path)


def joined(
    home: Path, pool_url: str | None, source: SecretSource, kit_text: str | None
) -> SiteConfig:
    """Find the pool of a site that begins with one that is there; see `Site.join`."""
    url = _prepare(home, pool_url)
    if kit_text is not None:
        from holdfast.vault import recovery_kit

        key = recovery_kit.read(kit_text)
        pool = open_pool(url, secret=PoolKey(key), cache_dir=None)
        chosen = secrets.choose(home, source, new=True)
        add_slot(url, key, chosen.secret)
    else:
        chosen = secrets.choose(home, source, new=False)
        pool = open_pool(url, secret=chosen.secret, cache_dir=None)
    return SiteConfig(url, pool_id(pool.id), chosen.source, chosen.path)


def _prepare(home: Path, pool_url: str | None) -> str:
    if (home / site_config.CONFIG_NAME).exists():
        raise SiteExists(
            f"there is a Holdfast site at {home} already",
            "use it as it is, or set HOLDFAST_HOME to another directory",
        )
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except PermissionError as error:
        raise NoPermission(
            f"may not make the directory {home}", "set HOLDFAST_HOME to a directory of yours"
        ) from error
    except FileExistsError as error:
        raise NoPermission(
            f"{home} is not a directory", "set HOLDFAST_HOME to a directory of yours"
        ) from error
    except OSError as error:
        raise InputOutput(f"can't make the directory {home}: {error.strerror}") from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise NoPermission(f"may not write in {home}", "set HOLDFAST_HOME to a directory of yours")
    return places.pool_place(pool_url) if pool_url is not None else str(home / "pool")
