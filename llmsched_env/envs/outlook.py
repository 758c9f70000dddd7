"""What is predicted of one engine: prefill still to do, who can be on time, how long steps are, and KV memory to come.

Beside what `envs.features` counts, an agent sees how that compares with targets and machine. Times follow from the
batch-time law that schedulers believe, output lengths from predictions, so a deployed scheduler can know all of it.
"""

from math import inf, isnan
from typing import Any, NamedTuple

from llmsched_env.compiled import compiled
from llmsched_env.envs.features import Observation, Running, Waiting, engine_features, engine_writer, look
from llmsched_env.features import Feature
from llmsched_env.fields import Records
from llmsched_env.machine.compiled_law import seconds_with_host
from llmsched_env.policies.survey import missed_first, output_left
from llmsched_env.simulator.primitives import is_decoding, prefill_left
from llmsched_env.simulator.state import UNLIMITED
from llmsched_env.simulator.step_time import attention_seconds, chunk_seconds

_CHUNK = 2048  # tokens of a chunk whose time a token of prefill is taken to have


class QueueOutlook(NamedTuple):
    """What is predicted."""

    prefill: float  # s that the prefill left takes, of waiting and running requests
    least_ttft: float  # s: tightest TTFT target of waiting requests; inf without one
    hopeless: int  # waiting requests that would be late even if they were next
    slack: float  # s that waiting requests could still wait, as shares of their TTFT targets: sum of those not hopeless
    waiting_output: float  # predicted output tokens of waiting requests
    waiting_tokens: float  # tokens that waiting requests will hold in the KV cache at their ends
    decode_step: float  # s of a batch of all decodes
    least_tpot: float  # s: tightest TPOT target of decodes that can still meet theirs; inf without one
    least_lead: float  # s until the first of these falls behind its target; inf without one
    lost: int  # decodes that have missed their SLO or will, even if no more prompts come
    growth: float  # tokens that decodes are predicted to generate yet
    free_tokens: float  # tokens for which there are free KV blocks


class SeenAhead(NamedTuple):
    """What the features are read from: `Seen`, and the outlook."""

    waiting: Waiting
    running: Running
    rates_record: Records  # RATES[1]
    ahead: QueueOutlook

    @property
    def rates(self) -> Any:
        return self.rates_record[0]


@compiled
def look_ahead(view, running):
    """The `QueueOutlook` of `view`; `running` is what was counted of its running requests."""
    req = view.req
    per_token = chunk_seconds(view, _CHUNK, 0) / _CHUNK
    prefill, least_ttft, hopeless, slack, waiting_output, waiting_tokens = 0.0, inf, 0, 0.0, 0.0, 0.0
    for k in range(len(view.waiting)):
        i = view.waiting[k]
        if i < 0:  # never; tells the compiler that indices need no wrap-around
            continue
        own = per_token * prefill_left(view, i) + attention_seconds(view, i)
        output = output_left(view, i)
        prefill += own
        waiting_output += output
        waiting_tokens += req.prefill_tokens[i] + output
        target = req.ttft_slo[i]
        if target < inf and isnan(req.first_token[i]):
            least_ttft = min(least_ttft, target)
            left = req.arrival[i] + target - view.clock - own
            if left < 0.0:
                hopeless += 1
            else:
                slack += min(1.0, left / target)
    step = decode_seconds(view, running)
    least_tpot, least_lead, lost, growth = inf, inf, 0, 0.0
    for k in range(len(view.running)):
        i = view.running[k]
        if i < 0:
            continue
        if not is_decoding(view, i):
            prefill += per_token * prefill_left(view, i) + attention_seconds(view, i)
            continue
        left = output_left(view, i)
        growth += left
        if missed_first(view, i):
            lost += 1
        elif req.tpot_slo[i] < inf and not isnan(req.first_token[i]):
            lead = req.first_token[i] + req.tpot_slo[i] * req.generated[i] - view.clock
            if lead + left * (req.tpot_slo[i] - step) <= 0.0:
                lost += 1
            else:
                least_tpot = min(least_tpot, req.tpot_slo[i])
                least_lead = min(least_lead, max(0.0, lead))
    free = float(view.kv.free * view.kv.block_size) if view.kv.total < UNLIMITED else inf
    return QueueOutlook(
        prefill, least_ttft, hopeless, slack, waiting_output, waiting_tokens, step, least_tpot, least_lead, lost,
        growth, free,
    )  # fmt: skip


@compiled
def decode_seconds(view, running):
    """Seconds of a batch of all decodes and nothing else."""
    n = running.decoding
    return seconds_with_host(view.law, n, running.context_tokens, 0, 0, n, False) if n > 0 else 0.0


@compiled(inline=True)
def against(value, limit):
    """`value` >= 0 beside a limit, in [0, 1]: 0.5 where they are equal, 0 without a limit."""
    return value / (value + limit) if limit < inf and value + limit > 0.0 else 0.0


_AHEAD = (
    Feature(
        "prefill_ahead",
        "p/(p + t): seconds of prefill left and the tightest TTFT target of waiting requests",
        None,
        lambda view, seen: against(seen.ahead.prefill, seen.ahead.least_ttft),
    ),
    Feature(
        "waiting_hopeless",
        "share of waiting requests that would be late even if they were next",
        None,
        lambda view, seen: seen.ahead.hopeless / max(1, seen.waiting.requests),
    ),
    Feature(
        "waiting_slack",
        "time that the others could still wait as a share of their TTFT targets, mean",
        None,
        lambda view, seen: seen.ahead.slack / max(1, seen.waiting.requests - seen.ahead.hopeless),
    ),
    Feature(
        "waiting_output_tokens",
        "predicted output tokens, mean over waiting requests",
        16384,
        lambda view, seen: seen.ahead.waiting_output / max(1, seen.waiting.requests),
    ),
    Feature(
        "decode_step",
        "s/(s + t): seconds of a batch of all decodes and the tightest TPOT target of those that can meet it",
        None,
        lambda view, seen: against(seen.ahead.decode_step, seen.ahead.least_tpot),
    ),
    Feature(
        "least_lead",
        "l/(l + t): seconds until the first of these falls behind its target, and that target",
        None,
        lambda view, seen: against(seen.ahead.least_lead, seen.ahead.least_tpot),
    ),
    Feature(
        "decoding_lost",
        "share of decodes that have missed their SLO or will, even if no prompt were prefilled any more",
        None,
        lambda view, seen: seen.ahead.lost / max(1, seen.running.decoding),
    ),
    Feature(
        "decode_output_left",
        "predicted output tokens left, mean over decodes",
        16384,
        lambda view, seen: seen.ahead.growth / max(1, seen.running.decoding),
    ),
    Feature(
        "kv_growth",
        "g/(g + f): tokens that decodes are predicted to generate yet and those that free KV blocks hold",
        None,
        lambda view, seen: against(seen.ahead.growth, seen.ahead.free_tokens),
    ),
    Feature(
        "kv_waiting",
        "w/(w + f): KV tokens of waiting requests at their predicted ends and those that free KV blocks hold",
        None,
        lambda view, seen: against(seen.ahead.waiting_tokens, seen.ahead.free_tokens),
    ),
)
AHEAD_FEATURES = engine_features(_AHEAD)
NUM_AHEAD_FEATURES = len(AHEAD_FEATURES)
_write = engine_writer(AHEAD_FEATURES)


@compiled
def observe_ahead(view, memory, out):
    """Write `AHEAD_FEATURES` to `out`; see `Observation`."""
    seen = look(view, memory)
    _write(view, SeenAhead(seen.waiting, seen.running, seen.rates_record, look_ahead(view, seen.running)), out)


AHEAD_OBSERVATION = Observation(AHEAD_FEATURES, observe_ahead)
