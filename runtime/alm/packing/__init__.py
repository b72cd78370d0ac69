"""One file of a folder: written the same from the same, listed, signed, verified, unpacked."""
