"""Versioned messages, tokens and certificates between master, media servers and agents.

Must not move data by itself (movers) nor decide anything (control). Empty until more than one
machine takes part.
"""
