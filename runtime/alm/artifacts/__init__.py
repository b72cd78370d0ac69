"""What export.py wrote: the manifest, its files, and whether they are whole."""
