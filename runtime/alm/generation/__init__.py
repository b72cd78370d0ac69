"""From audio and a prompt to text: the model, its conversations, the pipeline and its caches."""
