"""States to embeddings of the LLM. A file is a bridge."""
