"""The machines of a served site: the door that they come by, and their sessions.

The front door. Must not move data. Invariant: what a machine says is only ever taken for what it
says itself, of its own jobs and its own files.
"""

from holdfast.site.machines.door import Adder, make_door, serving
from holdfast.site.machines.machines import Machines
from holdfast.site.machines.sessions import Sessions
from holdfast.site.machines.storage import Storage

__all__ = ["Adder", "Machines", "Sessions", "Storage", "make_door", "serving"]
