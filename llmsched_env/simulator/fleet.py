"""What routers work out from the state of the fleet: memory asked for, and prompts that are cached."""

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.prefix_cache import IDLE_OR_HELD, prefix_blocks
from llmsched_env.simulator.world import Prefixes


@compiled
def cached_prefix(fleet, g, i):
    """Leading tokens of the prompt of call `i` in the prefix cache of engine `g`."""
    size = fleet.kv[g].block_size
    prefixes = Prefixes(
        fleet.cache_slots[g], fleet.cache_entries[g], fleet.kv[g], fleet.req.parent, fleet.req.shared_tokens
    )
    return size * prefix_blocks(prefixes, i, (fleet.req.prompt_tokens[i] - 1) // size, IDLE_OR_HELD)


@compiled
def demanded_blocks(fleet, g):
    """KV blocks that engine `g` holds, and those that the prompts of calls that wait there ask for.

    A router does not know which calls wait: their prompts are taken at the mean of all unfinished ones.
    """
    calls, prompts = fleet.outstanding[g].calls, fleet.outstanding[g].prompt_tokens
    held = fleet.kv[g].total - fleet.kv[g].free
    if calls <= 0.0:
        return float(held)
    waiting = max(0.0, calls - fleet.engines[g].num_running)
    return held + waiting * prompts / calls / fleet.kv[g].block_size
