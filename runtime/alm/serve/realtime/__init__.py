"""`WS /v1/realtime`: sound that comes is written down, in OpenAI's events of transcriptions."""
