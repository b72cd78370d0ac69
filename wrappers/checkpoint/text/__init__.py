"""Tokenizers, chat templates, prompts and generation settings of a checkpoint."""
