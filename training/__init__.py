"""What makes the artifacts of `lengthpred.models` from data."""
