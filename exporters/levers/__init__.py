"""What makes a part smaller or faster, one file each: a frozen dataclass `Lever` with `pull`."""
