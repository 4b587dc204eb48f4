"""Send an image of a pool that is open here to the media server of another pool of the site.

Must not touch the catalog, nor decide what goes where: the master's token says which image. What it
says of a base, the media server judges. Invariant: as of the other remote runs, nothing is on its
way when this returns or raises; the image is there as it is here, or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.movers.drive import drive
from holdfast.movers.transfer.remote_runs import LinkedRun, linked

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.engine import Image, Pool
    from holdfast.movers.drive import Reporter
    from holdfast.movers.transfer.remote_runs import TransferTarget


def remote_replicate(
    target: TransferTarget, pool: Pool, image: ImageId, report: Reporter | None = None
) -> Image:
    """Send an image, and wait until it is in the other pool.

    What that pool has already, of whatever image, does not travel. An image that is there, or that
    was on its way when an earlier run was cut off, costs little or nothing again.

    Args:
        target: The media server, with a token to replicate this image.
        pool: Has the image. Garbage may be collected there meanwhile.
        image: Which.
        report: Is told how far it is; its total is known when the image was looked through.

    Raises:
        ImageMissing: The pool has no such image.
        Invalid: The pools name chunks each in its own way.
        IntegrityError: The image is damaged here, and no other pack has what is damaged.
        Cancelled: Interrupted; a second run sends nothing twice.
        HoldfastError: It failed; the other pool is as sound as before.
    """
    with linked(target) as link:
        opened = link.open_upload(
            read_all=False, at_work=lambda: None if report is None else report(None)
        )
        run = target.remote_pool(opened.terms, link).replicate(pool, image, opened.parent)
        return drive(LinkedRun(run, link), report)
