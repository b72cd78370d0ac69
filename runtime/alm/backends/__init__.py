"""Engines, one file each: the file says which providers it drives and opens sessions."""
