"""Model families. A file recognises a checkpoint and takes it apart."""
