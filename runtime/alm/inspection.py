"""What is in an artifact folder."""


def show(*a, **k): ...
