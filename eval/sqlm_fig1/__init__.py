"""The published experiment on S-QLM, replayed: which engine, which order, and what it buys."""
