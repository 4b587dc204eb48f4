"""The hands: each run drives one verb of the engine to its end.

Must not import ``control``: a mover is told what to do, reports what it did and needs no
database. Invariant: a run that is interrupted cancels its verb and waits for it, so that the
pool is sound when the process ends.
"""
