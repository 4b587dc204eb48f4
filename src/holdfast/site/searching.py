"""Search the files of all images of a site, the quick way where there is one.

Must not open the pool, nor ask anybody for a secret, where the catalog is up to date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.control.catalog import FoundRow
    from holdfast.site.site import Site


def find(
    site: Site,
    pattern: str,
    *,
    source: str | None,
    versions: bool,
    catch_up: Callable[[Site], None],
) -> Iterator[FoundRow]:
    """Search names in every image of every source; see `Catalog.find`.

    Args:
        site: Whose.
        pattern: What to find.
        source: Only in this source.
        versions: Every version of what matches, instead of its newest.
        catch_up: Feeds the catalog what it has not taken in yet; called unless that is nothing.

    Raises:
        NotFound: There is no such source.
        Invalid: The pattern can't match anything.
        HoldfastError: The catalog can't be read, or fed.
    """
    if not site.inbox.notes() and not site.settings.text("database.url"):
        from holdfast.control.catalog import glance

        found = glance.find(site.home / "catalog", pattern, source=source, versions=versions)
        if found is not None:
            return found
    catch_up(site)
    return site.catalog.find(pattern, source=source, versions=versions)
