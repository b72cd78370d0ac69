"""The decoder graph with its KV cache, alone or with rows of several answers in one step."""
