"""Names of what a manifest says of who ordered its image.

Must not change: they are in pools. A catalog that is made anew knows by them which policy an
image is of, and a master that was killed knows whether a job has its image already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

POLICY = "policy"
"""The name of the policy."""

SCHEDULE = "schedule"
"""The name of its schedule."""

KIND = "kind"
"""The kind of backup, as in `control.schedule`: full, differential, …"""

JOB = "job"
"""The number of the job, and of the site that gave it: ``<site>/<job>``."""

SITE = "site"
"""The id of the site that made the image."""

CATALOG = "catalog"
"""The kind of an image that holds a site's own control database, and nobody's files."""

MACHINE = "machine"
"""The uuid of the virtual machine that the image is of."""

HYPERVISOR = "hypervisor"
"""The name that the site had for what ran it."""

INDEX_OF = "index_of"
"""The image of a machine whose files the image has names of, and nothing else."""


def of_job(site_id: str, job: int, fence: int) -> str:
    """The value of `JOB`: which job of which site made an image, and under which fence."""
    return f"{site_id}/{job}/{fence}"


def is_machine(labels: Mapping[str, str]) -> bool:
    """Whether an image with these labels is of a virtual machine."""
    return MACHINE in labels
