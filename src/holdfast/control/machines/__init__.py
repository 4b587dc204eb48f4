"""Machines of a site: who may join, who has joined, and who is not let in any more.

The front door. Must not know how machines are spoken to.
"""

from holdfast.control.machines.book import MachineBook, Standing
from holdfast.control.machines.machine import Invitation, Machine, Said

__all__ = ["Invitation", "Machine", "MachineBook", "Said", "Standing"]
