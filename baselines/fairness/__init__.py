"""Schedulers that share the engine fairly between clients, or by the quality that users perceive."""

ORDER = ("vtc", "andes")
