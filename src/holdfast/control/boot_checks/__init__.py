"""Whether virtual machines came up when they were booted from their images.

The front door. Must not boot any. Invariant: a verdict is of an image that the catalog knows, and
goes with it.
"""

from holdfast.control.boot_checks.book import BootCheck, BootCheckBook, NewBootCheck

__all__ = ["BootCheck", "BootCheckBook", "NewBootCheck"]
