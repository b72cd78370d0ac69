"""What was computed once and is wanted again: embeddings of clips, and beginnings of prompts."""
