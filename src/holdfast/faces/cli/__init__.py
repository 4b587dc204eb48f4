"""The command line: one module per command, Click for the words, Rich for the screen.

Data goes to stdout, talk to stderr. No module here opens a pool or a catalog by itself: see
``holdfast.site``.
"""
