"""What a command takes an image for: all streams of its backup, or it alone.

Must not decide which images those are: see `site.whole_backups`. Invariant: what a person has to
know of them is said once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base.errors import ClientKeyNeeded, HoldfastError
from holdfast.base.ids import stream_of
from holdfast.faces.cli import opening

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast.base.ids import ImageId
    from holdfast.engine import ClientKey, WholeTree
    from holdfast.faces.cli.screen import Screen
    from holdfast.site.site import Site


def together(screen: Screen, site: Site, image: ImageId) -> list[ImageId]:
    """The images that are one backup with an image, that one first; what to know of them is said.

    A site whose catalog is gone knows of none.
    """
    from holdfast.site.whole_backups import whole_backup

    if stream_of(site.pools.holding(image).image(image).source) is None:
        return [image]
    try:
        found = whole_backup(site.catalog, site.catalog.image(image))
    except HoldfastError as error:
        screen.say(f"warning: which images are of the other streams is not known: {error.message}")
        return [image]
    for remark in found.remarks:
        screen.say(f"warning: {remark}")
    return [one.id for one in found.images]


def all_together(
    screen: Screen, site: Site, images: Sequence[ImageId], *, only_these: bool
) -> list[ImageId]:
    """The same of several images, by the catalog: each once and in their order."""
    from holdfast.site.whole_backups import whole_backup

    chosen = dict.fromkeys(images)
    if only_these:
        return list(chosen)
    said: set[str] = set()
    for image in list(chosen):
        found = whole_backup(site.catalog, site.catalog.image(image))
        chosen |= dict.fromkeys(one.id for one in found.images)
        for remark in found.remarks:
            if remark not in said:
                screen.say(f"warning: {remark}")
            said.add(remark)
    return list(chosen)


def whole_tree(site: Site, images: Sequence[ImageId], key_file: Path | None = None) -> WholeTree:
    """What images have, as one tree; names are opened by the keys of this machine.

    Args:
        site: Whose images.
        images: One or more; see `together`.
        key_file: A client key that a person named.

    Raises:
        ClientKeyNeeded: None of them is sealed with the key that was named.
        HoldfastError: They can't be read.
    """
    from holdfast.engine import WholeTree

    pools = [(site.pools.holding(one), one) for one in images]
    wanted = {found for pool, one in pools if (found := pool.image(one).client_key) is not None}
    keys = client_keys(wanted, key_file)
    return WholeTree([(pool, str(one)) for pool, one in pools], keys)


def client_keys(wanted: set[str], file: Path | None) -> list[ClientKey]:
    """Those client keys that images are sealed with, as far as they are here.

    Raises:
        ClientKeyNeeded: A file was named, and holds none of them.
    """
    if not wanted and file is None:
        return []
    from holdfast.engine import ClientKey
    from holdfast.faces.cli.client_key import read_key_file
    from holdfast.movers.client_keys import ClientKeys, read_text

    found = [one.key for one in ClientKeys(opening.home()).all() if one.id in wanted]
    if file is not None:
        named = ClientKey(read_text(read_key_file(file)))
        if named.id not in wanted:
            sealed = f"sealed with {', '.join(sorted(wanted))}" if wanted else "not sealed"
            raise ClientKeyNeeded(
                f"{file} is client key {named.id}, and the backup is {sealed}",
                "'holdfast images --json' says which key each image is sealed with",
            )
        found.append(named)
    return found
