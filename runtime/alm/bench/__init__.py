"""Time and memory of every stage, measured."""
