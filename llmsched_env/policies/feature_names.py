"""Names of what the network of the index policy sees, in the order of `features.features`."""

FEATURE_NAMES = (
    "waiting", "prefill_work", "late", "decoding", "kv_used", "base", "pace", "oldest", "outside", "prompt_length",
    "started", "ttft_target", "tpot_target", "known_output", "prefill_load", "decode_rate", "alive", "length_spread",
    "target_range", "even", "spare", "growth", "relative_slack", "work_by_slack", "room", "prefill_odds", "queue",
    "output_left", "prompt", "ttft_slack", "tpot_slack", "output", "seats",
)  # fmt: skip


def feature_index(name: str) -> int:
    """Place of a feature, by its name."""
    return FEATURE_NAMES.index(name)
