"""Sound from a file or an array, as samples at the rate that a model wants."""
