"""Orca as it was built: every iteration may admit, but only what fits with the longest possible output."""

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
    """A token for each running request, then whole prompts by arrival, in one batch; nothing is preempted."""
    decodes(view, view.running)
    admit_reserved(view, params(view).max_output_tokens)
    return inf


orca_reserved = register_scheduler(
    Scheduler(
        "orca_reserved",
        compose,
        params=PARAMS,
        mixes_phases=True,
        reserves_kv=True,
        reference="Yu et al., OSDI 2022, Algorithm 1; "
        "memory for the longest output as in arXiv 2309.06180, section 6.1",
    )
)
