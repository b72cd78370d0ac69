"""Sound that comes piece by piece: heard with a state of fixed size, and said step by step."""
