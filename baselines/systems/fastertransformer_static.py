"""FasterTransformer as it was deployed: static batches, each served until its last request has finished."""

from math import inf

from baselines.registry import register_scheduler
from baselines.systems.reserved_prompts import admit_reserved
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of
from llmsched_env.simulator.primitives import decodes
from llmsched_env.simulator.scheduler import Log, Param, Scheduler

PARAMS = {
    "max_num_seqs": Param(256, 1, inf, "requests", Log(8, 1024)),
    "max_output_tokens": Param(2048, 1, 131072, "tokens"),
}
params = params_of(PARAMS)


@compiled
def compose(view):
    """When nothing runs, whole prompts with memory for the longest output; then decodes until all have finished.

    The padding of a static batch is not charged: finished requests cost no more time.
    """
    if len(view.running) == 0:
        admit_reserved(view, params(view).max_output_tokens)
    else:
        decodes(view, view.running)
    return inf


fastertransformer_static = register_scheduler(
    Scheduler(
        "fastertransformer_static",
        compose,
        params=PARAMS,
        reserves_kv=True,
        reference="NVIDIA FasterTransformer behind a dynamic batcher, as the baseline of OSDI 2022 (Orca), section 6",
    )
)
