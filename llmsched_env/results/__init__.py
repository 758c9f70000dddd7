"""What a run yields: rows, and the numbers computed from them."""
