"""Orca: prefill fills the budget first, decodes take the rest (arXiv 2504.07347, Table 1)."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.primitives import ALL, chunks, decodes
from llmsched_env.simulator.scheduler import Log, Param, Scheduler


@compiled
def compose(view):
    """Prefill tokens first come first served, the last prompt in part; then decodes."""
    chunks(view, view.running, ALL)
    chunks(view, view.waiting, ALL)
    decodes(view, view.running)
    return inf


orca = register_scheduler(
    Scheduler(
        "orca",
        compose,
        params={
            "token_budget": Param(512, 1, 16384, "tokens", Log(64, 8192)),
            "max_num_seqs": Param(inf, 1, inf, "requests", Log(8, 1024)),
        },
        work_conserving=True,
        throughput_optimal=True,
        mixes_phases=True,
        chunks_prefill=True,
        reference="arXiv 2504.07347, section 4, Table 1",
    )
)
