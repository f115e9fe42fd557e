"""Real engines: vLLM behind `lengthpred serve`, and fixed batches through its `LLM`."""
