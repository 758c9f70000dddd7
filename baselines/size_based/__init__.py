"""Schedulers that serve short requests first, by true lengths, predictions, ranks or attained service."""

ORDER = ("shortest_first", "learning_to_rank", "trail", "fastserve")
