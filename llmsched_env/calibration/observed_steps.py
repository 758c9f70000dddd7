"""The batches of a serving run, from the times at which its clients received each token.

All requests that decode in a step receive a token at its end. So the tokens of a run come in groups, one a step: a
group tells which requests decoded, with what context, and the gaps since their previous tokens how long the step took.
Prompts are laid into the steps before their first tokens as a scheduler does that chunks them first come, first served.
Steps that do not agree with that, and those in which a running request receives nothing, are left out; what is wrong
still (a prompt whose computation was lost to a preemption leaves no trace) is for `fit_steps` to leave out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmsched_env.calibration.measured_run import MeasuredRun
from llmsched_env.machine.batches import Batches

_APART = 0.25  # a pause of this share of a short gap between tokens ends a group
_SHORT = 0.1  # quantile of the gaps that is taken for a short one


@dataclass(frozen=True, slots=True, eq=False)
class ObservedSteps:
    """Steps of a run whose composition is known.

    Attributes:
        batches: these steps, in order of time.
        seen: how many steps there are in which a request received a token after another.
    """

    batches: Batches
    seen: int


def observed_steps(run: MeasuredRun, token_budget: int, schedule_ahead: int = 0) -> ObservedSteps:
    """The steps of a run that hold at least one decode.

    No prompt may have been found in a prefix cache.

    Args:
        run: a run with the gaps between its tokens.
        token_budget: most tokens in a batch.
        schedule_ahead: as of `EngineConfig`.

    Raises:
        ValueError: the run has no gaps.
    """
    if run.gaps is None:
        raise ValueError("run must have the gaps between its tokens, as vllm bench serve --save-detailed writes them")
    tokens = _Tokens(run)
    num_steps = tokens.num_steps
    decodes = tokens.place > 0
    active = _active(tokens)
    kept = np.bincount(tokens.step[decodes & tokens.follows], minlength=num_steps) == active
    prompts = _Prompts(tokens, active, token_budget)
    for i in np.lexsort((run.arrival, tokens.first_step)):
        prompts.lay(int(run.prompt_tokens[i]), float(run.arrival[i]), int(tokens.first_step[i]), schedule_ahead)
    context = np.where(decodes, run.prompt_tokens[tokens.request] + tokens.place - 1, 0)
    seconds = tokens.durations(decodes & tokens.follows)
    use = np.flatnonzero(kept & (active > 0) & (seconds > 0) & ~prompts.unknown)
    batches = Batches(
        total_tokens=active + prompts.tokens,
        decode_kv_tokens=np.bincount(tokens.step, weights=context, minlength=num_steps),
        prefill_attn_pairs=prompts.pairs,
        prefill_context_tokens=prompts.context,
        num_seqs=active + prompts.requests,
        seconds=seconds,
    )
    return ObservedSteps(batches=batches.part(use), seen=int(np.count_nonzero(active)))


class _Tokens:
    """All output tokens of a run in order of time, in groups.

    Attributes:
        time: f8[t], s.
        request: i8[t].
        place: i8[t], 0 for the first token of a request.
        step: i8[t], the group.
        follows: bool[t], whether the request received its previous token in the group before.
        first_step, last_step: i8[n], groups of the first and last token of each request.
        ends: f8[num_steps], s.
    """

    def __init__(self, run: MeasuredRun) -> None:
        assert run.gaps is not None
        counts = np.array([len(gaps) + 1 for gaps in run.gaps])
        starts = np.cumsum(counts) - counts
        gap = np.concatenate([np.append(0.0, gaps) for gaps in run.gaps])
        request = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(counts.sum()) - starts[request]
        since_first = np.cumsum(gap) - np.cumsum(gap)[starts][request]
        time = (run.arrival + run.ttft)[request] + since_first
        order = np.lexsort((place, time))
        self.time, self.request, self.place, self._gap = time[order], request[order], place[order], gap[order]
        self.step = self._groups(gap[place > 0])
        self.num_steps = int(self.step[-1]) + 1
        step_of = np.empty_like(self.step)
        step_of[order] = self.step
        before = np.append(-2, step_of[:-1])
        self.follows = (self.place > 0) & (self.step == before[order] + 1)
        self.first_step, self.last_step = step_of[starts], step_of[starts + counts - 1]
        self.ends = np.bincount(self.step, weights=self.time) / np.bincount(self.step)

    def _groups(self, gaps: np.ndarray) -> np.ndarray:
        pause = _APART * float(np.quantile(gaps, _SHORT)) if len(gaps) else 0.0
        apart = np.append(False, np.diff(self.time) > pause).tolist()
        latest: dict[int, int] = {}
        groups, group = [], 0
        for own, request in zip(apart, self.request.tolist(), strict=True):
            if own or latest.get(request) == group:
                group += 1
            latest[request] = group
            groups.append(group)
        return np.array(groups)

    def durations(self, chosen: np.ndarray) -> np.ndarray:
        """f8[num_steps]: median gap of the chosen tokens of each step; 0 where there are none."""
        order = np.lexsort((self._gap[chosen], self.step[chosen]))
        steps, gaps = self.step[chosen][order], self._gap[chosen][order]
        seconds = np.zeros(self.num_steps)
        present, first, counts = np.unique(steps, return_index=True, return_counts=True)
        seconds[present] = (gaps[first + (counts - 1) // 2] + gaps[first + counts // 2]) / 2
        return seconds


def _active(tokens: _Tokens) -> np.ndarray:
    """f8[num_steps]: requests that had their first token before the step, and not their last."""
    change = np.zeros(tokens.num_steps + 1)
    np.add.at(change, tokens.first_step + 1, 1)
    np.add.at(change, tokens.last_step + 1, -1)
    return np.cumsum(change)[:-1]


class _Prompts:
    """What of the prompts is computed in each step.

    Attributes:
        tokens, requests, pairs, context: f8[num_steps]; prompt tokens, requests that they are of, query-key pairs and
            tokens before them.
        unknown: bool[num_steps], steps in which an unknown part of a prompt was computed.
    """

    def __init__(self, tokens: _Tokens, active: np.ndarray, token_budget: int) -> None:
        self._ends, self._visible = tokens.ends, active > 0
        self._room = np.maximum(0, token_budget - active)
        self.tokens, self.requests, self.pairs, self.context = np.zeros((4, tokens.num_steps))
        self.unknown = np.zeros(tokens.num_steps, dtype=bool)

    def lay(self, prompt: int, arrival: float, last: int, ahead: int) -> None:
        """Lay a prompt into steps, the `last` of which yields its first token."""
        if not self._visible[last]:  # nothing decodes meanwhile: its steps cannot be seen
            return
        begin = int(np.searchsorted(self._ends, arrival))
        if self._visible[begin]:  # it ran as the request arrived; otherwise the engine may have been idle
            begin += 1 + ahead
        start, before = last, 0.0  # as early as it can without being done before the last step
        while start > begin and before + self._room[start - 1] < prompt:
            start -= 1
            before += self._room[start]
            if not self._visible[start]:
                break
        if not self._visible[start] or before + self._room[last] < prompt:
            self.unknown[start : last + 1] = True
            return
        # One that left room unused before had no seat or memory: it may have got them only now.
        if start > begin and before > 0 and self._room[start + 1 : last + 1].sum() >= prompt:
            self.unknown[start : last + 1] = True
        self._add(slice(start, last + 1), prompt)

    def _add(self, steps: slice, prompt: int) -> None:
        done = np.minimum(np.cumsum(self._room[steps]), prompt)
        chunk = np.diff(done, prepend=0.0)
        before = np.where(chunk > 0, done - chunk, 0)
        self._room[steps] -= chunk
        self.tokens[steps] += chunk
        self.requests[steps] += chunk > 0
        self.pairs[steps] += chunk * (before + (chunk + 1) / 2)
        self.context[steps] += before
