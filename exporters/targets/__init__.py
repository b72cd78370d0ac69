"""Where the artifacts will run, one file each: DIALECT of the decoder and the default PRECISION."""
