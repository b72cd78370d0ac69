"""The machine that this runs on: processor, cache folder, files written whole, stdout."""
