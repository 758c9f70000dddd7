"""Where the search for index policies begins, and which of their numbers may depend on what.

Two places to begin: what earlier searches and comparisons on tuning seeds have found, and plain constants, for a
training from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.steered import output_layer, within_four_knobs
from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.policies.learned_index import OUTPUTS, PERCEPTRON
from llmsched_env.validation import check_choice, check_integer

UNITS = {
    "kv_used": "kv_used",
    "base": "decode_step",
    "outside": "outside",
    "even": "even_step",
    "growth": "growth",
    "decoding": "decoding",
    "prefill_odds": "prefill_odds",
    "queue": "queue",
    "output_left": "output_left",
    "prompt": "prompt",
    "ttft_slack": "ttft_slack",
    "tpot_slack": "tpot_slack",
    "output": "output",
    "decode_rate": "decode_rate",
    "seats": "seats",
    "crowded": "prefill_odds",
}
"""The feature (`policies.index_features`) that each hidden unit passes on."""
_SWITCHES = {"crowded": (3.0, -1.8)}
"""Units that tell two sides of a feature apart: slope, bias. Crowded: prompts need over three quarters of the time.

There a third of the requests cannot be on time, and who is promised it is overtaken by shorter ones to come.
"""
_FIRST_NUMBERS: dict[str, dict[str, float]] = {
    "slo_attainment": {
        "by_length": 0.72,
        "by_slack": 1.55,
        "by_urgency": 1.55,
        "by_age": -0.05,
        "by_prediction": 0.09,
        "by_work": 0.29,
        "begun": 0.82,
        "late": 16.0,
        "decline": 0.0,
        "blocking": 1.0,
        "caution": 0.83,
        "margin": 1.22,
        "step_share": 0.97,
        "pace_share": 0.94,
        "spend": 0.001,
        "due_share": 0.9,
        "victims": 0.07,
        "extra": 1.67,
        "extra_by_load": 1.04,
        "join": 1e4,
        "least_chunk": 26.0,
        "most_active": 830.0,
        "late_share": 0.0,
        "spare": 0.26,
    },
    "mean_e2el": {
        "by_length": 0.6,
        "by_urgency": 0.0,
        "by_work": 0.3,
        "by_prediction": 0.1,
        "late": 0.0,
        "outside": 0.0,
        "decline": 0.0,
        "step_share": 1e4,
        "due_share": 1e4,
        "late_share": 1.0,
        "spare": 0.01,
        "keep": 0.02,
        "least_chunk": 48.0,
        "extra": 1.0,
        "extra_by_load": -0.45,
        "join": 1.5,
    },
}
"""Where they differ from the start that the network's outputs are measured from: no target matters to the latency.

For the SLO the last word was with evolution strategies, 140 generations, on training seeds of the training sites, of
the same with memory for 30 to 90 thousand tokens, and of random sites. Of the second half only six tenths of the way
are taken, for the sake of random sites; of the predictions half, and the margin is left as it was: see `_FOR_SLO`.
"""
_PLAIN_NUMBERS: dict[str, dict[str, float]] = {
    "slo_attainment": {
        "blocking": 1.0,
        "step_share": 1.0,
        "pace_share": 1.0,
        "victims": 1.0,
        "extra": 10.0,
    },
    "mean_e2el": {
        "by_length": 1.0,
        "by_urgency": 0.0,
        "late": 0.0,
        "outside": 0.0,
        "decline": 0.0,
        "step_share": 1e4,
        "due_share": 1e4,
        "late_share": 1.0,
        "extra": 3.0,
    },
}
"""The same of a plain rule: least slack or shortest prompt first, bounds at their natural values, nothing steered."""
_FIRST_WEIGHTS: dict[str, dict[tuple[str, str], float]] = {
    "slo_attainment": {
        ("extra", "kv_used"): -0.64,
        ("extra", "base"): -0.05,
        ("extra", "outside"): -0.09,
        ("extra", "growth"): -0.14,
        ("extra", "decoding"): -0.13,
        ("extra", "prefill_odds"): -0.11,
        ("extra", "output_left"): 0.14,
        ("extra", "prompt"): 0.24,
        ("extra", "ttft_slack"): -0.18,
        ("extra", "tpot_slack"): 0.15,
        ("extra", "output"): 0.06,
        ("extra", "seats"): 0.58,
        ("begun", "kv_used"): 0.04,
        ("join", "base"): 0.22,
        ("join", "prefill_odds"): -0.28,
        ("join", "ttft_slack"): 0.1,
        ("by_length", "kv_used"): 0.13,
        ("by_length", "outside"): -0.17,
        ("by_length", "growth"): 0.24,
        ("by_length", "prefill_odds"): -0.1,
        ("by_prediction", "kv_used"): 0.13,
        ("by_prediction", "base"): 0.22,
        ("margin", "kv_used"): 0.38,
        ("margin", "base"): 0.09,
        ("margin", "seats"): 0.2,
        ("margin", "crowded"): 0.25,
        ("blocking", "kv_used"): -0.11,
        ("blocking", "ttft_slack"): -0.18,
    },
    "mean_e2el": {
        ("extra", "decoding"): -0.32,
        ("extra", "queue"): 0.3,
        ("extra", "output"): -0.3,
        ("extra", "output_left"): -0.11,
        ("extra", "prompt"): 0.11,
        ("by_prediction", "queue"): 0.1,
        ("join", "prompt"): 0.53,
        ("join", "decoding"): -0.3,
        ("join", "base"): 0.22,
        ("by_length", "base"): 0.22,
        ("by_length", "prompt"): -0.18,
        ("by_length", "decoding"): -0.07,
    },
}
"""Where memory is short, what counts is that decodes end and make room. The more decode, the more prefill delays."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A search.

    Attributes:
        generations: how many.
        noise: of the search distribution.
        learning_rate: at the start; decays linearly to a tenth.
        pairs: of candidates.
        decay: by which what was found shrinks towards the start each generation, so that weights that hardly matter do
            not wander off.
        numbers: of the index policy, by name, whose constants are searched.
        steered: those numbers that depend on something, and
        units: on what, by names of `UNITS`.
    """

    generations: int
    noise: float
    learning_rate: float
    pairs: int
    decay: float
    numbers: tuple[str, ...]
    steered: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_integer("generations", self.generations, at_least=0)
        for unit in self.units:
            check_choice("units", unit, tuple(UNITS))


# Not the margin: its optimum is flat in the mean over sites, but what less of it saves on most is lost where a third of
# the requests cannot be on time.
_FOR_SLO = tuple(name for name in INDEX_PARAMS if name not in ("begun", "most_chunk", "margin"))
_FOR_LATENCY = (
    "by_length",
    "by_age",
    "by_prediction",
    "by_work",
    "least_chunk",
    "most_chunk",
    "extra",
    "extra_by_load",
    "join",
    "most_active",
    "keep",
)
STAGES = {
    "slo_attainment": (
        Stage(
            0,
            0.1,
            0.02,
            20,
            0.99,
            _FOR_SLO,
            ("extra", "by_prediction", "blocking", "join", "by_length"),
            ("kv_used", "seats", "base", "prefill_odds", "ttft_slack", "outside", "growth"),
        ),
    ),
    "mean_e2el": (
        Stage(
            80,
            0.1,
            0.02,
            16,
            0.99,
            _FOR_LATENCY,
            ("extra", "join", "by_prediction", "by_length"),
            ("prefill_odds", "queue", "decoding", "output_left", "kv_used", "output", "base", "prompt", "seats"),
        ),
    ),
}
"""Of the policies that come with the project, by objective: they begin where earlier searches have ended."""
PLAIN_STAGES = {
    objective: (
        Stage(60, 0.2, 0.08, 12, 0.999, (*refining.numbers, *(["margin"] if objective == "slo_attainment" else []))),
        refining,
    )
    for objective, (refining,) in STAGES.items()
}
"""Of a training from plain constants: large steps of these alone, then what they may depend on as well."""


def first_weights(objective: str = "slo_attainment", pausing: bool = False, plain: bool = False) -> np.ndarray:
    """Hidden units that pass on a feature each, and an output layer of little but biases: an index policy, still.

    A `plain` one has the constants of a simple rule, and no output depends on any feature.
    """
    weights = np.zeros(PERCEPTRON.size)
    for unit, (name, feature) in zip(PERCEPTRON.hidden_layer(weights), UNITS.items(), strict=True):
        unit[PERCEPTRON.input_place(feature)], unit[-1] = _SWITCHES.get(name, (1.0, 0.0))
    outputs = output_layer(weights)
    numbers = (_PLAIN_NUMBERS if plain else _FIRST_NUMBERS)[objective]
    steering = {} if plain else _FIRST_WEIGHTS[objective]
    for name, number in numbers.items():
        outputs[PERCEPTRON.output_place(name), -1] = OUTPUTS[name].inverse(number)
    for (name, unit), weight in steering.items():
        outputs[PERCEPTRON.output_place(name), list(UNITS).index(unit)] = weight
    if not pausing:
        return within_four_knobs(weights)
    outputs[PERCEPTRON.output_place("blocking")] = 0.0  # a prompt that can wait for others blocks none
    return weights


def searched(stage: Stage, pausing: bool) -> np.ndarray:
    """Places of the weights that a stage searches."""
    places, row = output_layer(np.arange(PERCEPTRON.size)), PERCEPTRON.output_place
    constants = places[[row(name) for name in (*stage.numbers, *(["begun"] if pausing else []))], -1]
    columns = [list(UNITS).index(unit) for unit in stage.units]
    others = places[np.ix_([row(name) for name in stage.steered], columns)].ravel()
    return np.append(constants, others).astype(int)
