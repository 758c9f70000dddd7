"""What a router is: a function that binds a call to an engine when it becomes ready; and what routers work out."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numba import types

from llmsched_env.compiled import FunctionPointer, compiled, function_pointer
from llmsched_env.machine.compiled_law import seconds_with_host
from llmsched_env.simulator.kv_cache import IDLE_OR_HELD, prefix_blocks
from llmsched_env.simulator.network_state import FLEET_TYPE, Fleet
from llmsched_env.simulator.scheduler import Rule
from llmsched_env.simulator.world import Prefixes
from llmsched_env.validation import check_choice

KNOWN_LENGTHS = ("no", "predicted", "true")
"""What a router may be told of output lengths, from nothing to all."""
CHUNK = 512  # tokens; the speed of an engine is what a batch of this many prompt tokens takes
UNKNOWN_OUTPUT = 128.0  # tokens of a call without a prediction


@dataclass(frozen=True)
class Router(Rule):
    """A rule that binds calls to engines; `name`, `params`, `needs_lengths` and so on are those of `Rule`.

    Args:
        route: `route(fleet, i) -> g`: the engine for call `i`, one with `fleet.allowed[g] == 1`. Compiled if numba can,
            else run as plain Python.
        memory: names of what it keeps; `router_memory` reads it.

    Raises:
        ValueError: for an unknown parameter, or a value outside its range.
    """

    route: Callable[[Fleet, int], int]
    memory: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        check_choice("needs_lengths", self.needs_lengths, KNOWN_LENGTHS)
        super().__post_init__()


def compiled_route(route: Callable[[Fleet, int], int]) -> FunctionPointer | None:
    """`route` compiled for the one fleet type, or None if numba cannot compile it."""
    return function_pointer(route, (FLEET_TYPE, types.int64))


@compiled
def cached_prefix(fleet, g, i):
    """Leading tokens of the prompt of call `i` in the prefix cache of engine `g`; 0 where there is none of the two."""
    if not (g >= 0 and g < len(fleet.engines) and i >= 0 and i < len(fleet.req.phase)):
        return 0
    size = fleet.kv[g].block_size
    prefixes = Prefixes(
        fleet.cache_slots[g], fleet.cache_entries[g], fleet.kv[g : g + 1], fleet.req.parent, fleet.req.shared_tokens
    )
    return size * prefix_blocks(prefixes, i, (fleet.req.prompt_tokens[i] - 1) // size, IDLE_OR_HELD)


@compiled
def demanded_blocks(fleet, g):
    """KV blocks that engine `g` holds, and those that the prompts of calls that wait there ask for.

    A router does not know which calls wait: their prompts are taken at the mean of all unfinished ones.
    """
    if not (g >= 0 and g < len(fleet.engines)):
        return 0.0
    calls, prompts = fleet.outstanding[g].calls, fleet.outstanding[g].prompt_tokens
    held = fleet.kv[g].total - fleet.kv[g].free
    if calls <= 0.0:
        return float(held)
    waiting = max(0.0, calls - fleet.engines[g].num_running)
    return held + waiting * prompts / calls / fleet.kv[g].block_size


@compiled(inline=True)
def predicted_output(req, i):
    """Predicted output tokens of call `i`; `UNKNOWN_OUTPUT` without a prediction."""
    known = req.known_output[i]
    return UNKNOWN_OUTPUT if np.isnan(known) else known


@compiled(inline=True)
def chunk_seconds(law):
    """Seconds of a batch of `CHUNK` prompt tokens."""
    return seconds_with_host(law, float(CHUNK), 0.0, 0.0, 0.0, 1.0, True)


@compiled(inline=True)
def decode_step_seconds(law, kv, running, prompt):
    """Seconds of the next decode step of an engine on which `running` calls run, with one of `prompt` tokens more."""
    context = (kv.total - kv.free) * kv.block_size + prompt
    return seconds_with_host(law, running + 1.0, float(context), 0.0, 0.0, running + 1.0, False)
