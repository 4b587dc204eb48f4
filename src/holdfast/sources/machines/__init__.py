"""Virtual machines, whatever runs them: found, frozen, read while they run, and restored.

Must not know of policies, jobs, or pools. One interface (`provider`), a package for each kind of
hypervisor.
"""
