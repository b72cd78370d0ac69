"""Adapters (LoRA and its kin): read, checked and merged."""
