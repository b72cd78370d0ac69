"""Folders of models that lie on a model hub: they are pushed there, and pulled by their hashes."""
