"""Words about what a run did beyond the ranges that its machines are known in."""

import warnings
from collections.abc import Sequence

from llmsched_env.fields import Records
from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.tabulated_law import TabulatedLaw


def warn_of_ranges(states: Records, engines: Sequence[EngineConfig]) -> None:
    """Warn of batches that were longer than the tables of batch times, and of requests beyond the context length.

    The words are the same in each run of an engine, so that Python says them once.

    Args:
        states: ENGINE[G], after the run.
        engines: the machines.
    """
    for state, engine in zip(states, engines, strict=True):
        law = engine.batch_time
        if isinstance(law, TabulatedLaw):
            decodes, mixed = law.range
            if state.most_decodes > decodes or state.most_tokens > mixed:
                _warn(
                    f"{engine.name}: some batches were longer than its tables of batch times reach to ({decodes} "
                    f"tokens of decodes alone, {mixed} with prefill), and beyond them times are extrapolated"
                )
        if state.num_too_long > 0:
            _warn(
                f"{engine.name}: requests of more than max_model_len={engine.max_model_len} tokens, prompt and output "
                "together, are turned away as they arrive"
            )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)
