"""The master's mind: the catalog; later policies, schedules, the broker, lifecycles.

Must not touch data: it decides and remembers, movers act. Never imports ``movers``.
"""
