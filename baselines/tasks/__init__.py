"""Schedulers for classes of calls, and for calls that belong to the tasks of agents."""

ORDER = ("class_priority", "max_pressure", "critical_path", "autellix", "justitia")
