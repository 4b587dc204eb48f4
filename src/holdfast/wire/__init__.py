"""Versioned messages, tokens and certificates between master, media servers and agents.

Must not move data by itself (movers) nor decide anything (control). The messages of jobs are in
`messages`, and what is asked about virtual machines in `machine_work`; they are the same inside one
process as they are between machines.
"""
