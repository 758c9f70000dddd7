"""llmsched replay: a recording of vLLM's scheduler against ours, step by step."""

from dataclasses import dataclass

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.options import PrintOptions, RecordedInput, RecordedTrace


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReplayOptions(PrintOptions):
    """How the result is printed."""


_DEFAULTS = ReplayOptions()


def replay(
    recorded_input: RecordedInput, recorded_trace: RecordedTrace, *, options: ReplayOptions = _DEFAULTS
) -> Answer:
    """Simulate the input of a recording, and compare every step; the exit status is 1 if one differs."""
    from baselines.vllm_replay import first_difference

    difference = first_difference(recorded_input, recorded_trace)
    text = "every step is the same" if difference is None else difference
    row = {"input": str(recorded_input), "same": difference is None, "first_difference": difference}
    return Answer(text, [row], status=int(difference is not None))
