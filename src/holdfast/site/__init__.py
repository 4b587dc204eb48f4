"""The embedded site: one home directory that joins configuration, pool and catalog.

The only floor that sees both ``movers`` and ``control``. Must not print or prompt: that is the
faces' part.
"""
