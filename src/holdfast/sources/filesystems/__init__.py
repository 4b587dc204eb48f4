"""File systems inside of disks that somebody else had mounted: found, named, listed, read.

Must not know of pools, images or catalogs, nor trust a byte of a disk: what is on it was written by
whoever owned the machine. A disk is any object with `size` and `read_at`.
"""
