"""The numbers of the index policy: what they mean, their defaults, and the ranges in which they are searched."""

from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import number_record
from llmsched_env.simulator.scheduler import Linear, Log, Param

ALWAYS = 100.0  # the largest "begun": begun prompts always go first

LIMITS = {
    "token_budget": Param(16384, 1, 131072, "tokens"),
}
"""Parameters of every scheduler with these numbers, before them."""

INDEX_PARAMS = {
    "by_length": Param(1.0, -10, 10, "for each e-fold of prompt tokens left", Linear(0, 2)),
    "by_slack": Param(0.0, -100, 100, "for each TTFT target of slack, within -1 to 1", Linear(0, 8)),
    "by_urgency": Param(0.0, -100, 100, "for each e-fold of slack in seconds", Linear(0, 4)),
    "by_age": Param(0.0, -100, 100, "for each e-fold of waiting time", Linear(-1, 1)),
    "by_prediction": Param(0.0, -10, 10, "for each e-fold of predicted output", Linear(0, 2)),
    "by_memory": Param(0.0, -10, 10, "for each e-fold of tokens in the KV cache at its predicted end"),
    "by_work": Param(0.0, -10, 10, "for each e-fold of predicted seconds of service", Linear(0, 2)),
    "late": Param(10.0, -100, 100, "added where the TTFT target cannot be met any more", Linear(0, 20)),
    "outside": Param(0.0, -100, 100, "added outside the largest set of prompts that can be on time", Linear(0, 20)),
    "decline": Param(0.0, 0, 100, "added once a prompt has been outside that set", Linear(0, 20)),
    "blocking": Param(
        0.0,
        0,
        100,
        "for each request expected to be late if this prompt is begun; from 1 on the prompt is outside",
        Linear(0, 2),
    ),
    "begun": Param(ALWAYS, -100, ALWAYS, "subtracted for begun prompts", (0, 1, ALWAYS)),
    "caution": Param(1.2, 0, 100, "times the predicted prefill time, for slack", Log(0.3, 4, whole=False)),
    "margin": Param(
        1.0,
        0.1,
        10,
        "times the predicted prefill time, for the largest set of prompts that can be on time",
        Log(0.5, 2, whole=False),
    ),
    "step_share": Param(
        0.9, 0.01, 1e6, "longest step, as a share of the longest that keeps TPOT targets", Log(0.2, 4, whole=False)
    ),
    "pace_share": Param(0.0, 0, 100, "or as a share of the time until a decode falls behind its target", Linear(0, 2)),
    "spend": Param(
        0.0, 0, 1, "or as a share of the prefill that decodes can bear beyond what is expected", Linear(0, 1)
    ),
    "due_share": Param(
        1e6,
        0,
        1e6,
        "longest step, as a share of the time until a first token in it is due",
        Log(0.5, 2, whole=False),
    ),
    "victims": Param(
        1e6,
        0,
        1e6,
        "longest step, by the requests expected to arrive during it and to be late for it",
        Log(0.01, 1, whole=False),
    ),
    "least_chunk": Param(64, 0, 131072, "prefill tokens that a step may take whatever its time", Log(1, 4096)),
    "most_chunk": Param(16384, 0, 131072, "prefill tokens of a step; below 1 prefill is held", Log(64, 16384)),
    "extra": Param(
        1e6,
        0,
        1e6,
        "longest prefill with decodes in the batch, as a multiple of the step without it",
        Log(0.1, 30, whole=False),
    ),
    "extra_by_load": Param(
        1.0,
        -10,
        10,
        "weight of that step in the multiple, on a log scale; the rest is the weight of the empty step",
        Linear(-1, 1),
    ),
    "join": Param(
        1e6,
        0,
        1e6,
        "prefill, as a multiple of the shortest step, beyond which no further prompt joins",
        Log(0.1, 30, whole=False),
    ),
    "most_active": Param(1e6, 1, 1e6, "requests admitted", Log(8, 1024)),
    "late_share": Param(
        1.0, 0, 1, "longest step for prompts that will be late, as a share of the longest", Linear(0, 1)
    ),
    "spare": Param(0.3, 0, 1, "share of KV blocks that prompts that will be late leave free", Linear(0, 0.8)),
    "keep": Param(0.0, 0, 1, "share of KV blocks that all prompts leave free", Linear(0, 0.3)),
}
"""Parameters of `index`; `learned_index` sets the same numbers before every batch."""

NUMBERS = number_record(*INDEX_PARAMS)


@compiled(inline=True)
def numbers_of(values):
    """The numbers of the index policy by name, a record over `values` (f8[numbers], in the order of `INDEX_PARAMS`)."""
    return values.view(NUMBERS)[0]
