"""What an engine remembers of recent arrivals: their rates, lengths and targets, and how long they could wait."""

from math import exp, floor, inf, log, log2

from llmsched_env.compiled import compiled
from llmsched_env.policies.survey import empty_step_seconds, of_requests
from llmsched_env.simulator.memory import number_names, number_record

LONGEST_TTFT = 60.0  # s; TTFT targets beyond count as this
_SECONDS, _REQUESTS = 20.0, 100.0  # time constants of the averages: of rates, and of means over requests
_BINS, _LEAST_PATIENCE = 9, 0.05  # arrivals are counted by patience: up to 0.05 s, then in bins that double

RECENT = number_record(
    "clock",  # s: when it was last updated
    "weight",  # share of the averages that has been observed: 1 after a while
    "prefill_rate",  # s of prefill that arrive a second
    "decode_rate",  # s of decodes that arrive a second
    "num_seen",  # requests seen
    "log_prompt",  # mean logarithm of the prompt tokens of recent requests,
    "log_output",  # of their predicted output tokens,
    "log_ttft_slack",  # of their TTFT target over the seconds that their prefill takes alone,
    "log_tpot_slack",  # and of their TPOT target over the seconds of an empty step
    patience=_BINS,  # requests a second by how long their prefill may wait
)
RECENT_NAMES = number_names(RECENT)
"""As a scheduler declares it in its engine memory."""


@compiled
def watch_arrivals(view, recent):
    """Bring `recent` (a record of `RECENT`) up to date with the requests that have arrived.

    A request's decodes count by its prediction, and only with what they add to batches that are run anyway. Its
    patience is how long its prefill may wait without missing its TTFT target.
    """
    req, law, own = view.req, view.law, of_requests(view)
    fade = exp((recent.clock - view.clock) / _SECONDS)
    recent.weight = 1.0 - fade + fade * recent.weight
    for k in range(_BINS):
        recent.patience[k] *= fade
    prefill, decode = 0.0, 0.0
    per_token = law.a_step / law.b0 + law.a_tok + law.a_tok_over
    alone = empty_step_seconds(view)
    for i in view.waiting:
        if own.seen[i] == 0.0:
            own.seen[i] = 1.0
            prompt, known = float(req.prompt_tokens[i]), req.known_output[i]
            seconds = per_token * prompt + law.a_attn * 0.5 * prompt * prompt
            prefill += seconds
            recent.patience[_bin(req.ttft_slo[i] - seconds - alone)] += 1.0 / _SECONDS
            recent.num_seen += 1.0
            rate = 1.0 / min(_REQUESTS, recent.num_seen)
            recent.log_prompt += rate * (log(prompt) - recent.log_prompt)
            if known > 0.0:
                decode += known * (law.a_tok + law.a_kv * (prompt + 0.5 * known))
                recent.log_output += rate * (log(known) - recent.log_output)
            slack = min(req.ttft_slo[i], LONGEST_TTFT) / (alone + seconds)
            recent.log_ttft_slack += rate * (log(max(0.1, slack)) - recent.log_ttft_slack)
            pace = min(req.tpot_slo[i], 1.0) / alone
            recent.log_tpot_slack += rate * (log(max(0.1, pace)) - recent.log_tpot_slack)
    recent.prefill_rate = fade * recent.prefill_rate + prefill / _SECONDS
    recent.decode_rate = fade * recent.decode_rate + decode / _SECONDS
    recent.clock = view.clock


@compiled
def prefill_rate(recent):
    """The share of its time that the engine needs for the prompts that arrive, from 0.03 to 0.95."""
    return max(0.03, min(0.95, recent.prefill_rate / max(0.1, recent.weight)))


@compiled
def _bin(patience):
    if patience <= _LEAST_PATIENCE:
        return 0
    return int(min(_BINS - 1.0, 1.0 + floor(log2(min(patience, 1e6) / _LEAST_PATIENCE))))


@compiled
def expected_late(recent, seconds):
    """Number of requests expected to arrive within `seconds` and to be late if they wait until the end of them.

    This is the cost of beginning a prompt that takes `seconds` and cannot be interrupted.
    """
    expected, patience = 0.0, 0.0
    for k in range(_BINS):
        if seconds <= patience:
            break
        expected += recent.patience[k] * (seconds - patience)
        patience = _LEAST_PATIENCE if k == 0 else 2.0 * patience
    return expected / max(0.1, recent.weight)


@compiled
def longest_wait(recent, count):
    """Seconds that arrivals may have to wait if `count` >= 0 of them are expected to be late: inverts `expected_late`.

    inf where hardly any requests come.
    """
    weight = max(0.1, recent.weight)
    rate, seconds, expected, patience = 0.0, 0.0, 0.0, 0.0
    for k in range(_BINS):
        if expected + rate * (patience - seconds) > count * weight:
            break
        expected += rate * (patience - seconds)
        seconds = patience
        rate += recent.patience[k]
        patience = _LEAST_PATIENCE if k == 0 else 2.0 * patience
    return seconds + (count * weight - expected) / rate if rate > 0.0 else inf
