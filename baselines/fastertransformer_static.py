"""FasterTransformer as it was deployed: static batches, each served until its last request is done."""

from math import inf

from baselines.orca_reserved import admit_reserved
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import decodes
from llmsched_env.simulator.rule import Log, Param
from llmsched_env.simulator.scheduler import Scheduler

_SEQS, MAX_OUTPUT = range(2)


@compiled
def compose(view):
    """When nothing runs, whole prompts with memory for the longest output; then decodes until all have finished.

    The padding of a static batch is not charged: requests that are done cost no more time.
    """
    if len(view.running) == 0:
        admit_reserved(view, view.mem.params[MAX_OUTPUT])
    else:
        decodes(view, view.running)
    return inf


fastertransformer_static = Scheduler(
    "fastertransformer_static",
    compose,
    params={
        "max_num_seqs": Param(256, 1, inf, "requests", Log(8, 1024)),
        "max_output_tokens": Param(2048, 1, 131072, "tokens"),
    },
    reserves_kv=True,
    reference="NVIDIA FasterTransformer behind a dynamic batcher, as the baseline of OSDI 2022 (Orca), section 6",
)
