"""Schedulers whose behaviour is a vector of numbers: set by hand, tuned, or the output of a network."""
