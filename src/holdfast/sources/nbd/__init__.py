"""The network block device protocol: what disks of machines are read, written and shown by.

Must not know of machines, hypervisors, or pools. A client, a server, and the `qemu-nbd` program as
the one reader and writer of formats of virtual disks.
"""
