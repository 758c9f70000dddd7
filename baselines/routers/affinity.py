"""Routers that send a call to the engine that holds its context, unless that engine is overloaded."""

from baselines.registry import register_router
from baselines.routers.fleet import allowed_at, least_loaded, num_allowed, overloaded
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import router_params
from llmsched_env.simulator.router import Router, cached_prefix
from llmsched_env.simulator.scheduler import Param

OVERLOADED = {
    "more_calls": Param(64, 0, 2**40, "calls more than the least loaded engine has"),
    "times": Param(1.5, 1, 2**40, "times as many"),
}
PREFIX_AWARE = {**OVERLOADED, "least_match": Param(0.3, 0, 1, "share of the prompt")}
overload_params, prefix_params = router_params(OVERLOADED), router_params(PREFIX_AWARE)
_PRIME = 2**31 - 1


@compiled
def _longest_prefix(fleet, i):
    """The engine that has most of the prompt cached if that is enough, else the one with most memory unused.

    If the numbers of calls are out of balance by both thresholds, the engine with the fewest calls.
    """
    p, best, most, unbalanced = prefix_params(fleet), -1, -1, False
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            unbalanced = unbalanced or overloaded(fleet, g, p.more_calls, p.times)
            cached = cached_prefix(fleet, g, i)
            if cached > most or (cached == most and _fewer_calls(fleet, g, best)):
                best, most = g, cached
    if unbalanced:
        return least_loaded(fleet, fleet.outstanding.calls)
    enough = max(1, p.least_match * fleet.req.prompt_tokens[i])
    return best if most >= enough else _roomiest(fleet)


@compiled
def _roomiest(fleet):
    """The engine with most KV blocks that hold nothing, not even cached tokens; of equals that with fewest calls."""
    best, most = -1, -1
    for g in range(len(fleet.allowed)):
        if fleet.allowed[g] == 1:
            unused = fleet.kv[g].free - fleet.kv[g].cached
            if unused > most or (unused == most and _fewer_calls(fleet, g, best)):
                best, most = g, unused
    return best


@compiled(inline=True)
def _fewer_calls(fleet, g, other):
    return fleet.outstanding[g].calls < fleet.outstanding[other].calls


@compiled
def _home(fleet, i):
    """The engine that the session (else the task) of the call hashes to; the least loaded one if that is overloaded."""
    p = overload_params(fleet)
    key = fleet.req.session[i] if fleet.req.session[i] >= 0 else fleet.req.task[i]
    home = allowed_at(fleet, (key % _PRIME) * 48271 % _PRIME % num_allowed(fleet))
    if overloaded(fleet, home, p.more_calls, p.times):
        return least_loaded(fleet, fleet.outstanding.calls)
    return home


prefix_aware = register_router(
    Router(
        "prefix_aware",
        _longest_prefix,
        params=PREFIX_AWARE,
        reference="cache-aware policy of the SGLang router, on the true content of the caches",
    )
)
session_affinity = register_router(
    Router("session_affinity", _home, params=OVERLOADED, reference="sticky sessions with an escape")
)
