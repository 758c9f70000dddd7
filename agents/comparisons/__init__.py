"""Trained policies compared with all others on held-out runs."""
