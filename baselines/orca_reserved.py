"""Orca as it was built: every iteration may admit, but only what fits with the longest possible output."""

from math import inf

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing, cached_tokens
from llmsched_env.simulator.primitives import decodes, reserve, take, tokens_left, usable
from llmsched_env.simulator.rule import Log, Param
from llmsched_env.simulator.scheduler import Scheduler

_SEQS, MAX_OUTPUT = range(2)


@compiled
def compose(view):
    """A token for each running request, then whole prompts by arrival, in one batch; nothing is preempted."""
    decodes(view, view.running)
    admit_reserved(view, view.mem.params[MAX_OUTPUT])
    return inf


@compiled
def admit_reserved(view, max_output):
    """Whole prompts first come first served, memory set aside for each with `max_output` tokens more."""
    counts = view.batch.counts
    for k in range(len(view.waiting)):
        i = view.waiting[k]
        n = usable(view, i)
        longest = min(view.req.prompt_tokens[i] + int(max_output), view.kv.total * view.kv.block_size)
        longest = max(longest, view.req.prefill_tokens[i])
        if n > tokens_left(view) or len(view.running) + counts.admitted >= counts.seq_limit:
            break
        if blocks_missing(view, i, longest - cached_tokens(view, i)) > view.kv.free or take(view, i, n) == 0:
            break
        reserve(view, i, longest)


orca_reserved = Scheduler(
    "orca_reserved",
    compose,
    params={
        "max_num_seqs": Param(256, 1, inf, "requests", Log(8, 1024)),
        "max_output_tokens": Param(2048, 1, 131072, "tokens"),
    },
    mixes_phases=True,
    reserves_kv=True,
    reference="Yu et al., OSDI 2022, Algorithm 1; memory for the longest output as in arXiv 2309.06180, section 6.1",
)
