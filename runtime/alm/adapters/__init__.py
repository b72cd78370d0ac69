"""LoRA adapters at run time: read from peft's files, and put into the slots of the graphs."""
