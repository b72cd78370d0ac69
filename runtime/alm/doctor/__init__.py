"""`alm doctor`: a device proves that it runs a folder as the original ran, or names what is off."""
