"""Language models. A file reads the config of one kind and gives its `Spec`."""
