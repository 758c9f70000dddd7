"""FasterTransformer: prefill a batch of prompts, then decode it to the end (arXiv 2504.07347, Table 1)."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.primitives import decodes, whole_prompts
from llmsched_env.simulator.scheduler import Log, Param, Scheduler


@compiled
def compose(view):
    """If any request is decoding, decodes only; else whole prompts, first come first served."""
    if len(view.running) > 0:
        decodes(view, view.running)
    else:
        whole_prompts(view)
    return inf


fastertransformer = register_scheduler(
    Scheduler(
        "fastertransformer",
        compose,
        params={
            "token_budget": Param(16384, 1, 131072, "tokens", Log(1024, 16384)),
            "max_num_seqs": Param(inf, 1, inf, "requests", Log(8, 1024)),
        },
        work_conserving=False,
        mixes_phases=False,
        chunks_prefill=False,
        reference="arXiv 2504.07347, section 4, Table 1",
    )
)
