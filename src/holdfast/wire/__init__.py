"""Versioned messages, tokens and certificates between master, media servers and agents.

Must not move data by itself (movers) nor decide anything (control). The messages of jobs are in
`messages`; they are the same inside one process as they are to be between machines.
"""
