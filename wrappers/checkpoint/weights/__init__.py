"""Weights of a checkpoint, read tensor by tensor."""
