"""Memory and speed on a device, predicted from the manifest."""
