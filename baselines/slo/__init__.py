"""Schedulers that serve requests with targets for TTFT and TPOT."""
