"""Where backups live: pools, their keys, and the stores beneath them.

Must not know what gets backed up (sources) nor who asked for it (control).
"""
