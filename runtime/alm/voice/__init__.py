"""Where somebody speaks: utterances of a stream or a clip, and whether there is speech at all."""
