"""Virtual machines that run from their images: which, since when, and how that ended.

The front door. Must not reach a hypervisor. Invariant: as long as one has not ended, its image is
held.
"""

from holdfast.control.instant.book import Ending, InstantBook, InstantRecovery, NewInstant

__all__ = ["Ending", "InstantBook", "InstantRecovery", "NewInstant"]
