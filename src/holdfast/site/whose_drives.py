"""Where the local file systems of a client are mounted, whoever has to say so.

Must not wait for a machine: what it said last counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.movers.drives import local_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.base.ids import ClientName
    from holdfast.control.machines import Standing


def drives_of(standing: Callable[[], Standing]) -> Callable[[ClientName], Sequence[str]]:
    """What tells the drives of each client of a site.

    Args:
        standing: What is known of machines.
    """

    def drives(client: ClientName) -> Sequence[str]:
        known = standing()
        return known.drives.get(client, ()) if client in known.agents else local_paths(client)

    return drives
