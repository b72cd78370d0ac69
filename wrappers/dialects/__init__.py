"""The forms in which a decoder's attention is written into a graph, one file each."""
