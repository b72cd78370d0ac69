"""What all endpoints share: the model and its queue, conversations that are kept, counters."""
