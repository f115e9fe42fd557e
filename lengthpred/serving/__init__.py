"""What a server needs besides a predictor."""
