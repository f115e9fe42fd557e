"""vLLM: a middleware that orders requests, a plugin that learns their lengths, a scheduler."""
