"""Pictures of an engine or a network at a moment: a line of text, or a small image drawn with NumPy."""

import numpy as np

from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.state import UNLIMITED
from llmsched_env.simulator.world import View

HEIGHT, WIDTH = 120, 320
BACKGROUND, WAITING, PREFILL, DECODE, FRAME = (
    np.array(colour, np.uint8)
    for colour in ((255, 255, 255), (213, 94, 0), (230, 159, 0), (0, 114, 178), (120, 120, 120))
)


def as_text(view: View) -> str:
    """Clock, queue, running requests, KV use and the composition of the batch in one line."""
    decoding = _decoding(view)
    tokens, prefill = view.totals.latest_tokens, view.totals.latest_prefill_tokens
    return (
        f"t={view.clock:9.3f} s  waiting={len(view.waiting):4d}  prefilling={len(view.running) - decoding:3d}  "
        f"decoding={decoding:4d}  kv={_kv_used(view):4.0%}  "
        f"batch: {prefill} prefill + {tokens - prefill} decode tokens"
    )


def as_image(view: View, token_budget: float) -> np.ndarray:
    """u8[120, 320, 3]: bars of waiting, prefilling and decoding requests (log scale), the batch, KV use.

    Args:
        view: of the engine.
        token_budget: tokens of a batch that fill its bar, at most 16384.
    """
    image = np.tile(BACKGROUND, (HEIGHT, WIDTH, 1))
    decoding = _decoding(view)
    tokens, prefill = view.totals.latest_tokens, view.totals.latest_prefill_tokens
    share = lambda n: np.log1p(n) / np.log1p(4096)  # noqa: E731
    limit = max(1.0, min(token_budget, 16384.0))
    rows = (
        ((share(len(view.waiting)), WAITING),),
        ((share(len(view.running) - decoding), PREFILL),),
        ((share(decoding), DECODE),),
        ((prefill / limit, PREFILL), ((tokens - prefill) / limit, DECODE)),
        ((_kv_used(view), FRAME),),
    )
    for place, parts in enumerate(rows):
        top, left = 8 + 22 * place, 4
        for part, colour in parts:
            right = min(WIDTH - 4, left + round(float(part) * (WIDTH - 8)))
            image[top : top + 16, left:right] = colour
            left = right
        image[top + 16, 4 : WIDTH - 4] = FRAME
    return image


def _decoding(view: View) -> int:
    computed, prompt = view.req.computed[view.running], view.req.prefill_tokens[view.running]
    return int(np.count_nonzero(computed >= prompt))


def _kv_used(view: View) -> float:
    total = view.kv.total
    return 0.0 if total >= UNLIMITED else 1.0 - view.kv.free / total


def network_as_text(simulator: NetworkSimulator, tasks: int) -> str:
    """Clock, tasks in the system, and the calls and the backlog (tokens) of each engine in one line."""
    engines = "  ".join(
        f"[{g}] waiting={engine.num_waiting} running={engine.num_running} backlog={engine.backlog}"
        for g, engine in enumerate(simulator.world.engines)
    )
    return f"t={simulator.clock:9.3f} s  tasks={tasks}  {engines}"
