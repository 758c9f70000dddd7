"""Where the search for index policies starts, and which of their numbers may depend on which features.

There are two starts: the result of earlier searches and comparisons on tuning seeds, and plain constants, for a
training from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.settings import EvolutionSettings
from llmsched_env.evaluation.benchmark.four_knobs import within_four_knobs
from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.policies.learned_index import OUTPUTS, PERCEPTRON
from llmsched_env.validation import check_choice

UNITS = (
    "kv_used", "decode_step", "outside", "even_step", "growth", "decoding", "prefill_odds", "queue", "output_left",
    "prompt", "ttft_slack", "tpot_slack", "output", "decode_rate", "seats", "crowded",
)  # fmt: skip
"""The hidden units: each passes on the feature of its name, except those in `_SWITCHES`."""
_SWITCHES = {"crowded": ("prefill_odds", 3.0, -1.8)}
"""Units that separate two ranges of a feature: its name, slope, bias.

Crowded: prefill needs over three quarters of the time. Then a third of the requests cannot meet their targets, and a
request that was expected to is overtaken by shorter ones that arrive later.
"""
_FIRST_NUMBERS: dict[str, dict[str, float]] = {
    "slo_attainment": {
        "by_length": 0.72, "by_slack": 1.55, "by_urgency": 1.55, "by_age": -0.05, "by_prediction": 0.09,
        "by_work": 0.29, "begun": 0.82, "late": 16.0, "decline": 0.0, "blocking": 1.0, "caution": 0.83,
        "margin": 1.22, "step_share": 0.97, "pace_share": 0.94, "spend": 0.001, "due_share": 0.9, "victims": 0.07,
        "extra": 1.67, "extra_by_load": 1.04, "join": 1e4, "least_chunk": 26.0, "most_active": 830.0,
        "late_share": 0.0, "spare": 0.26,
    },
    "mean_e2el": {
        "by_length": 0.6, "by_urgency": 0.0, "by_work": 0.3, "by_prediction": 0.1, "late": 0.0, "outside": 0.0,
        "decline": 0.0, "step_share": 1e4, "due_share": 1e4, "late_share": 1.0, "spare": 0.01, "keep": 0.02,
        "least_chunk": 48.0, "extra": 1.0, "extra_by_load": -0.45, "join": 1.5,
    },
}  # fmt: skip
"""By objective, the numbers that differ from the start in `learned_index.OUTPUTS`; for the latency no target matters.

Those for the SLO come from 140 generations of evolution strategies on training seeds of the training sites, of the same
sites with memory for 30 to 90 thousand tokens, and of random sites. Of the changes of the last 70 generations six
tenths are kept, for the sake of random sites; of those that concern predictions half. The margin is left as it was, see
`_FOR_SLO`.
"""
_PLAIN_NUMBERS: dict[str, dict[str, float]] = {
    "slo_attainment": {
        "blocking": 1.0, "step_share": 1.0, "pace_share": 1.0, "victims": 1.0, "extra": 10.0,
    },
    "mean_e2el": {
        "by_length": 1.0, "by_urgency": 0.0, "late": 0.0, "outside": 0.0, "decline": 0.0, "step_share": 1e4,
        "due_share": 1e4, "late_share": 1.0, "extra": 3.0,
    },
}  # fmt: skip
"""The same for a plain rule: least slack or shortest prompt first, bounds at their natural values."""
_FIRST_WEIGHTS: dict[str, dict[tuple[str, str], float]] = {
    "slo_attainment": {
        ("extra", "kv_used"): -0.64, ("extra", "decode_step"): -0.05, ("extra", "outside"): -0.09,
        ("extra", "growth"): -0.14, ("extra", "decoding"): -0.13, ("extra", "prefill_odds"): -0.11,
        ("extra", "output_left"): 0.14, ("extra", "prompt"): 0.24, ("extra", "ttft_slack"): -0.18,
        ("extra", "tpot_slack"): 0.15, ("extra", "output"): 0.06, ("extra", "seats"): 0.58,
        ("begun", "kv_used"): 0.04, ("join", "decode_step"): 0.22, ("join", "prefill_odds"): -0.28,
        ("join", "ttft_slack"): 0.1, ("by_length", "kv_used"): 0.13, ("by_length", "outside"): -0.17,
        ("by_length", "growth"): 0.24, ("by_length", "prefill_odds"): -0.1, ("by_prediction", "kv_used"): 0.13,
        ("by_prediction", "decode_step"): 0.22, ("margin", "kv_used"): 0.38, ("margin", "decode_step"): 0.09,
        ("margin", "seats"): 0.2, ("margin", "crowded"): 0.25, ("blocking", "kv_used"): -0.11,
        ("blocking", "ttft_slack"): -0.18,
    },
    "mean_e2el": {
        ("extra", "decoding"): -0.32, ("extra", "queue"): 0.3, ("extra", "output"): -0.3,
        ("extra", "output_left"): -0.11, ("extra", "prompt"): 0.11, ("by_prediction", "queue"): 0.1,
        ("join", "prompt"): 0.53, ("join", "decoding"): -0.3, ("join", "decode_step"): 0.22,
        ("by_length", "decode_step"): 0.22, ("by_length", "prompt"): -0.18, ("by_length", "decoding"): -0.07,
    },
}  # fmt: skip
"""By objective, weights from units to numbers.

Where memory is short, decodes should end and free it. The more requests decode, the more of them prefill delays.
"""


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


# Not the margin: its optimum is flat in the mean over sites. A smaller one helps at most sites, but costs as much where
# a third of the requests cannot meet their targets.
_FOR_SLO = tuple(name for name in INDEX_PARAMS if name not in ("begun", "most_chunk", "margin"))
_FOR_LATENCY = (
    "by_length", "by_age", "by_prediction", "by_work", "least_chunk", "most_chunk", "extra", "extra_by_load", "join",
    "most_active", "keep",
)  # fmt: skip
STAGES = {
    "slo_attainment": (
        IndexStage(
            0,
            0.1,
            0.02,
            20,
            0.99,
            _FOR_SLO,
            ("extra", "by_prediction", "blocking", "join", "by_length"),
            ("kv_used", "seats", "decode_step", "prefill_odds", "ttft_slack", "outside", "growth"),
        ),
    ),
    "mean_e2el": (
        IndexStage(
            80,
            0.1,
            0.02,
            16,
            0.99,
            _FOR_LATENCY,
            ("extra", "join", "by_prediction", "by_length"),
            ("prefill_odds", "queue", "decoding", "output_left", "kv_used", "output", "decode_step", "prompt", "seats"),
        ),
    ),
}
"""By objective, of the policies that come with the project: they start where earlier searches ended."""
PLAIN_STAGES = {
    objective: (
        IndexStage(
            60, 0.2, 0.08, 12, 0.999, (*refining.numbers, *(["margin"] if objective == "slo_attainment" else []))
        ),
        refining,
    )
    for objective, (refining,) in STAGES.items()
}
"""By objective, of a training from plain constants: large steps of these alone, then also of what they depend on."""


def first_weights(objective: str = "slo_attainment", pausing: bool = False, plain: bool = False) -> np.ndarray:
    """f8[size]: hidden units that each pass on a feature, and an output layer of mostly biases.

    With `plain` the constants are those of a simple rule, and no output depends on any feature. Without `pausing`
    prompts that have begun go first.
    """
    weights = np.zeros(PERCEPTRON.size)
    for row, unit in zip(PERCEPTRON.hidden_layer(weights), UNITS, strict=True):
        feature, slope, bias = _SWITCHES.get(unit, (unit, 1.0, 0.0))
        row[PERCEPTRON.input_place(feature)], row[-1] = slope, bias
    outputs, place = PERCEPTRON.output_layer(weights), PERCEPTRON.output_place
    numbers = (_PLAIN_NUMBERS if plain else _FIRST_NUMBERS)[objective]
    steering: dict[tuple[str, str], float] = {} if plain else _FIRST_WEIGHTS[objective]
    for name, number in numbers.items():
        outputs[place(name), -1] = OUTPUTS[name].inverse(number)
    for (name, unit), weight in steering.items():
        outputs[place(name), UNITS.index(unit)] = weight
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
