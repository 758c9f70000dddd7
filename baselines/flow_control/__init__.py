"""Schedulers of queueing theory, which limit how many requests start and when: thresholds, tiles, gates."""

ORDER = ("dong_cao_1", "dong_cao_2", "wait", "nested_wait", "rad", "eb", "gate_and_route")
