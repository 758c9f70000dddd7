"""Schedulers for engines that serve several classes of calls, or the calls of tasks."""
