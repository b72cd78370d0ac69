"""What families share: readers of folders, configs, weights, tokenizers and adapters."""
