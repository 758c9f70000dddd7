"""Which seeds are for what, so that nothing is ever tested on a workload it was trained or tuned on."""

from llmsched_env.validation import check_integer

TRAINING_SEEDS = 10_000
TUNING_SEEDS = 20_000
TEST_SEEDS = 30_000
_SIZE = 10_000


def seed_range(first: int, count: int) -> range:
    """The `count` seeds from `first`, one of TRAINING_SEEDS, TUNING_SEEDS and TEST_SEEDS.

    Raises:
        ValueError: if `count` is below 1 or reaches into the next range.
    """
    return range(first, first + check_integer("number of seeds", count, at_least=1, at_most=_SIZE))
