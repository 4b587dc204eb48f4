"""Storage units of a site: where images go, beside the pool that it began with.

The front door. Must not open a pool.
"""

from holdfast.control.storage.book import StorageBook
from holdfast.control.storage.unit import DEFAULT_SLOTS, MOST_SLOTS, StorageUnit, unit_name

__all__ = ["DEFAULT_SLOTS", "MOST_SLOTS", "StorageBook", "StorageUnit", "unit_name"]
