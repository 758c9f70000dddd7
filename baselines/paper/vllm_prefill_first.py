"""vLLM as of 2023: prompts before decodes, never both in one batch (arXiv 2504.07347, Table 1)."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.primitives import decodes, prompt_pending, whole_prompts
from llmsched_env.simulator.scheduler import Log, Param, Scheduler


@compiled
def compose(view):
    """If any prompt is pending, whole prompts only, first come first served; else decodes only.

    The paper's model has no memory limit. With one, a prompt that finds no memory is not pending.
    """
    if prompt_pending(view):
        whole_prompts(view)
    else:
        decodes(view, view.running)
    return inf


vllm_prefill_first = register_scheduler(
    Scheduler(
        "vllm_prefill_first",
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
