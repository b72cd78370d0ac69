"""The version of the device package, and of the manifests that it writes."""

__version__ = "0.1.0"
