"""The forms in which attention is written into a graph, one file each (see `dialect.py`)."""
