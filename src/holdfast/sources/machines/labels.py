"""Names of what backups leave at a hypervisor: whose it is can be read from each.

Must not look for any of it. Invariant: two sites never take away each other's.
"""

from __future__ import annotations

import secrets

PREFIX = "holdfast"
"""How each begins."""


def owner_of(label: str) -> str:
    """Whose leftovers are whose: the site in a label ``<site>-<job>``."""
    return label.rpartition("-")[0] or label


def new_checkpoint(label: str) -> str:
    """A name that no image had before."""
    return f"{PREFIX}.{owner_of(label)}.{secrets.token_hex(8)}"


def directory_prefix(label: str) -> str:
    """How the directories of a site's backups begin."""
    return f"{PREFIX}-{owner_of(label)}-"
