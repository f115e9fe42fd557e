"""Replay of schedules: an engine for language models on a virtual clock."""
