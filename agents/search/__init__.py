"""Searches without gradients: evolution strategies, and coordinate search."""
