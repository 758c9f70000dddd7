"""Stable-Baselines3: our vector environments as it sees them."""
