"""The commands `alm-run` and `alm`, and what they print."""
