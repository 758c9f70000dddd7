"""RAD: batches that fill the tiles of the matrix products exactly (arXiv 2508.01002)."""

from math import inf

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import engine_memory, params_of
from llmsched_env.simulator.primitives import again_if_preempted, chunk, decodes, is_decoding
from llmsched_env.simulator.scheduler import Log, Param, Scheduler
from llmsched_env.simulator.state import RUNNING

PARAMS = {
    "chunk": Param(512, 1, 16384, "tokens", Log(64, 8192)),
    "decode_tile": Param(128, 1, 16384, "requests", Log(16, 1024)),
    "cycle": Param(inf, 1, inf, "chunks", Log(1, 64)),
}
ENGINE = ("prefills",)  # chunks since the last decode batch
params, memory = params_of(PARAMS), engine_memory(ENGINE)


@compiled
def compose(view):
    """One chunk of the oldest prompt; or, if `decode_tile` requests decode or no prompt can go on, one token for each.

    The chunk is a common multiple of the tile sizes, so that all matrix products are full if prompts are multiples of
    it and memory holds `decode_tile` requests. The last chunk of any other prompt is shorter; no padding is charged.
    After `cycle` chunks in a row a decode batch comes in any case, if one is possible. This is our reading of the
    paper's cycle parameter, which bounds the time between two tokens.
    """
    p, m = params(view), memory(view)
    decoding = 0
    for i in view.running:
        decoding += is_decoding(view, i)
    if decoding < p.decode_tile and (decoding == 0 or m.prefills < p.cycle):
        _prefill(view, int(p.chunk))
    if view.batch.counts.num_seqs > 0:
        m.prefills += 1.0
        return inf
    m.prefills = 0.0
    decodes(view, view.running)
    return again_if_preempted(view)


@compiled
def _prefill(view, limit):
    """A chunk of the oldest prompt that has begun, or else of the first that waits."""
    for i in view.running:
        if view.req.phase[i] == RUNNING and not is_decoding(view, i):
            chunk(view, i, limit)
            return
    if len(view.waiting) > 0:
        chunk(view, view.waiting[0], limit)


rad = register_scheduler(
    Scheduler(
        "rad",
        compose,
        params=PARAMS,
        memory={"engine": ENGINE},
        chunks_prefill=True,
        reference="RAD, arXiv 2508.01002",
    )
)
