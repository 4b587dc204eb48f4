"""A tiny guest that reads file systems with its own kernel, for those that need one.

Must not run anything of the disk that it reads. The backup server's kernel never sees that disk;
what escaped from the guest would find itself a nobody in the emulator's sandbox.
"""
