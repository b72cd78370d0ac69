"""Many files answered by one model, a row of JSON each, and gone on with where a run stopped."""
