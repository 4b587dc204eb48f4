"""What gets backed up: sources beyond plain files, which the engine itself walks.

Must not know where backups live (the vault).
"""
