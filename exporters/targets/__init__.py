"""Where the artifacts will run, one file each.

A file says the decoder's DIALECT, the default PRECISION, what AUTO is for each role of a part, and
ENGINES: those whose own operators a graph may hold.
"""
