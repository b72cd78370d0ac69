"""Features to states. A file is an encoder."""
