"""Virtual machines between a hypervisor and a pool.

Must not know what kind of hypervisor it is, nor touch the catalog.
"""
