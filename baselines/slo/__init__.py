"""Schedulers with latency targets (TTFT, TPOT): deadlines, slack, chunk sizes, early rejection."""

ORDER = (
    "slo_first",
    "edf",
    "qoserve",
    "sola",
    "fair_batching",
    "slai",
    "mooncake_early_rejection",
    "slos_serve",
)
