"""The form of an index policy: the plain rule that a search begins with, and which numbers may depend on what.

None of the constants was found in development: shares and bounds begin at 1, and no number depends on anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.settings import EvolutionSettings, IndexSettings
from llmsched_env.evaluation.benchmark.four_knobs import within_four_knobs
from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.policies.learned_index import OUTPUTS, PERCEPTRON
from llmsched_env.validation import check_choice

UNITS = (
    "kv_used", "decode_step", "outside", "even_step", "growth", "decoding", "prefill_odds", "queue", "output_left",
    "prompt", "ttft_slack", "tpot_slack", "output", "decode_rate", "seats", "prompt_spread",
)  # fmt: skip
"""The hidden units: each passes on the feature of its name."""
_PLAIN: dict[str, dict[str, float]] = {
    "slo_attainment": {
        "blocking": 1.0, "step_share": 1.0, "pace_share": 1.0, "victims": 1.0, "extra": 10.0,
    },
    "mean_e2el": {
        "by_length": 1.0, "by_urgency": 0.0, "late": 0.0, "outside": 0.0, "decline": 0.0, "step_share": 1e4,
        "due_share": 1e4, "late_share": 1.0, "extra": 3.0,
    },
}  # fmt: skip
"""By objective, the numbers that differ from the start in `learned_index.OUTPUTS`: least slack first, or shortest
prompt first, for which no target matters."""


@dataclass(frozen=True, slots=True)
class IndexStage(EvolutionSettings):
    """A stage of evolution strategies in the training of an index policy.

    Attributes:
        numbers: names of the numbers of the index policy whose constants are searched.
        dependent: names of the numbers that depend on `units`.
        units: names from `UNITS`.
    """

    numbers: tuple[str, ...] = ()
    dependent: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        EvolutionSettings.__post_init__(self)
        for number in (*self.numbers, *self.dependent):
            check_choice("numbers", number, tuple(INDEX_PARAMS))
        for unit in self.units:
            check_choice("units", unit, UNITS)


_FOR_SLO = tuple(name for name in INDEX_PARAMS if name not in ("begun", "most_chunk"))
_FOR_LATENCY = (
    "by_length", "by_age", "by_prediction", "by_work", "least_chunk", "most_chunk", "extra", "extra_by_load", "join",
    "most_active", "keep",
)  # fmt: skip


def _stages(
    numbers: tuple[str, ...], dependent: tuple[str, ...], units: tuple[str, ...]
) -> tuple[IndexStage, IndexStage]:
    first, second = IndexSettings().generations  # unless a training has others
    return (
        IndexStage(first, 0.2, 0.08, 12, 0.999, numbers),
        IndexStage(second, 0.1, 0.04, 12, 0.998, numbers, dependent, units),
    )


STAGES = {
    "slo_attainment": _stages(
        _FOR_SLO,
        ("extra", "by_prediction", "blocking", "join", "by_length", "margin"),
        ("kv_used", "seats", "decode_step", "prefill_odds", "ttft_slack", "outside", "growth"),
    ),
    "mean_e2el": _stages(
        _FOR_LATENCY,
        ("extra", "join", "by_prediction", "by_length"),
        (
            "prefill_odds", "queue", "decoding", "output_left", "kv_used", "output", "decode_step", "prompt", "seats",
            "prompt_spread",
        ),
    ),
}  # fmt: skip
"""By objective: large steps of the constants alone, then small ones of these and of what they depend on."""


def first_weights(objective: str = "slo_attainment", pausing: bool = False) -> np.ndarray:
    """f8[size]: hidden units that each pass on a feature, and an output layer of biases alone.

    Without `pausing` prompts that have begun go first.
    """
    weights = np.zeros(PERCEPTRON.size)
    for row, unit in zip(PERCEPTRON.hidden_layer(weights), UNITS, strict=True):
        row[PERCEPTRON.input_place(unit)] = 1.0
    outputs, place = PERCEPTRON.output_layer(weights), PERCEPTRON.output_place
    for name, number in _PLAIN[objective].items():
        outputs[place(name), -1] = OUTPUTS[name].inverse(number)
    if not pausing:
        return within_four_knobs(weights)
    outputs[place("blocking")] = 0.0  # a prompt that can wait for others blocks none
    return weights


def searched(stage: IndexStage, pausing: bool) -> np.ndarray:
    """Places of the weights that a stage searches."""
    places, row = PERCEPTRON.output_layer(np.arange(PERCEPTRON.size)), PERCEPTRON.output_place
    constants = places[[row(name) for name in (*stage.numbers, *(["begun"] if pausing else []))], -1]
    dependent = [row(name) for name in stage.dependent]
    others = places[np.ix_(dependent, [UNITS.index(unit) for unit in stage.units])].ravel()
    return np.append(constants, others).astype(int)
