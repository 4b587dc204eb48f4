"""Names of what backups leave at a hypervisor: whose it is can be read from each.

Must not look for any of it. Invariant: two sites never take away each other's; what a trial left,
anybody may.
"""

from __future__ import annotations

import secrets

PREFIX = "holdfast"
"""How each begins."""
TRIAL = f"{'try':0<32}-0"
"""Who orders a backup that is only to show that one would come to pass.

As long as a site's, so that a path which would be too long for a socket is found out.
"""


def owner_of(label: str) -> str:
    """Whose leftovers are whose: the site in a label ``<site>-<job>``."""
    return label.rpartition("-")[0] or label


def new_checkpoint(label: str) -> str:
    """A name that no image had before."""
    return f"{PREFIX}.{owner_of(label)}.{secrets.token_hex(8)}"


def directory_prefix(label: str) -> str:
    """How the directories of a site's backups begin."""
    return f"{PREFIX}-{owner_of(label)}-"
