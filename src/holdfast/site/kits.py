"""The paper that opens a pool of a site when all else is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.vault import recovery_kit

if TYPE_CHECKING:
    from holdfast.site.site import Site
    from holdfast.vault.recovery_kit import Kit


def kit_of(site: Site, unit: str | None = None) -> Kit:
    """Make the recovery kit of a pool.

    Args:
        site: Whose.
        unit: Of which storage unit; None for the site's own pool.

    Raises:
        NotFound: There is no such unit.
        NotAPool: The site's own pool is gone.
        WrongKey: The site's secret does not open its pool.
    """
    # That it is there, and the one that the site knows.
    _ = site.pool
    pool, place, key = site.pool_id, site.config.pool_url, site.pool_key()
    if unit is not None and site.pools.of_unit(unit) != pool:
        found = site.units.unit(unit)
        pool, place, key = found.pool, found.place, site.units.key(found.pool, key)
    return recovery_kit.make(
        pool_id=bytes.fromhex(pool), pool_url=place, pool_key=key, created=site.clock.now()
    )
