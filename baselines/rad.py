"""RAD: batches that fill the tiles of the matrix products exactly (arXiv 2508.01002)."""

from math import inf

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import again_if_preempted, chunk, decodes, is_decoding
from llmsched_env.simulator.rule import Log, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import RUNNING

CHUNK, DECODE_TILE, CYCLE = range(3)
PREFILLS = 0  # memory of the engine: chunks since the last decode batch


@compiled
def compose(view):
    """One chunk of the oldest prompt; or, if `decode_tile` requests decode or no prompt can go on, one token for each.

    The chunk is a common multiple of the tile sizes, so that all matrix products are full if prompts are multiples of
    it and memory holds `decode_tile` requests. The end of another prompt is shorter here; no padding is charged. After
    `cycle` chunks in a row a decode batch comes in any case, where one is possible: our reading of the paper's cycle
    parameter, which bounds the time between two tokens.
    """
    params, memory = view.mem.params, view.mem.engine
    decoding = 0
    for i in view.running:
        decoding += is_decoding(view, i)
    if decoding < params[DECODE_TILE] and (decoding == 0 or memory[PREFILLS] < params[CYCLE]):
        _prefill(view, int(params[CHUNK]))
    if view.batch.counts.num_seqs > 0:
        memory[PREFILLS] += 1.0
        return inf
    memory[PREFILLS] = 0.0
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


rad = Scheduler(
    "rad",
    compose,
    params={
        "chunk": Param(512, 1, 16384, "tokens", Log(64, 8192)),
        "decode_tile": Param(128, 1, 16384, "requests", Log(16, 1024)),
        "cycle": Param(inf, 1, inf, "chunks", Log(1, 64)),
    },
    memory={"engine": ("prefills",)},
    chunks_prefill=True,
    reference="RAD, arXiv 2508.01002",
)
