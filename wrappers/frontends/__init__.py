"""Samples to features. A file is a front end; its name is the part's kind."""
