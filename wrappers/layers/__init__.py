"""Layers that parts share: the decoder, attention, rotary embeddings."""
