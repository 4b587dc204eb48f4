"""Who looks for the live checks of policies for virtual machines: whoever reaches each hypervisor.

Must not judge what is seen. Invariant: what a hypervisor tells meanwhile is kept, as after any
discovery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.site.hypervisors import discover, try_out
from holdfast.sources.machines.isolated import emulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.control.hypervisors import Estate, VirtualMachine
    from holdfast.control.policies import Room
    from holdfast.site.master import Master
    from holdfast.site.probing import SiteProbe
    from holdfast.sources.machines.provider import Remark


class HypervisorProbe:
    """Looks at hypervisors, and at storage as another probe does."""

    def __init__(self, master: Master, of_site: SiteProbe) -> None:
        """Prepare.

        Args:
            master: Whose hypervisors.
            of_site: Looks at storage, and knows for how long somebody may wait.
        """
        self._master = master
        self._of_site = of_site

    @property
    def is_over(self) -> bool:
        """Whether it has looked for as long as somebody may wait."""
        return self._of_site.is_over

    def room(self, storage_unit: str) -> Room:
        """See `SiteProbe.room`."""
        return self._of_site.room(storage_unit)

    def ask_hypervisor(self, name: str) -> Estate:
        """Have a hypervisor tell its machines now.

        Raises:
            HoldfastError: It does not, and why.
        """
        discover(self._master, name)
        return self._master.hypervisors.estate()

    def try_machine(
        self, one: VirtualMachine, scratch: str | None, *, trim: bool, leave_out: tuple[str, ...]
    ) -> Sequence[Remark]:
        """Look whether a backup of a machine would come to pass.

        Raises:
            HoldfastError: It can't be looked at, and why.
        """
        return try_out(self._master, one, scratch, trim=trim, leave_out=leave_out).remarks

    def require_emulator(self) -> None:
        """Make sure that images can be booted here, as boot checks are done by the master.

        Raises:
            LibraryMissing: There is no emulator.
        """
        emulator()
