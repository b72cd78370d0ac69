"""Prompts, tasks, tokens and the text that is made of them."""
