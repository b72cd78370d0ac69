"""When each word of a text is spoken: an aligner's folder, opened beside a model."""
