"""What is asked under /v1: fields and messages read, answers formed."""
