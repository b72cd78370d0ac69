"""Module -> graph -> leaner graph -> artifacts. One file a step, in the order of a run."""
