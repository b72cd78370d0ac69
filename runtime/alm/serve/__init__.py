"""`alm serve`: OpenAI's endpoints for audio over one model, batched, bounded, on this machine."""
