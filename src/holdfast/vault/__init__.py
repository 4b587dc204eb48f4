"""Where backups live: pools, their keys, and the stores beneath them.

Must not know what gets backed up (sources) nor who asked for it (control).
"""

from holdfast.vault.backends import open_store, python_store

__all__ = ["open_store", "python_store"]
