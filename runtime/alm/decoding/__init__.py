"""From logits to tokens: options, logits processing, sampling, beam search."""
