"""Several tokens at a time, none of them another than one at a time gives.

A drafter guesses what comes next, the model reads the guess in one call, and what it would have
said itself is kept. What is drafted can cost time, never a token.
"""
