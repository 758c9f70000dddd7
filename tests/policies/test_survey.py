"""What the index policy reads off the engine, by hand."""

import dataclasses

import pytest

import llmsched_env as ls
from llmsched_env.compiled import interpreted
from llmsched_env.fields import records
from llmsched_env.policies import survey
from llmsched_env.policies.index import index
from llmsched_env.policies.index_params import NUMBERS
from llmsched_env.simulator.primitives import decodes

ENGINE = ls.EngineConfig(ls.Staircase(c=1.0, a=0.25, b0=256), token_budget=2560)
look, decode = interpreted(survey.survey), interpreted(decodes)


def state_beside_a_decode(extra):
    """The state when one request decodes and a prompt has come; `extra` as of the batch before."""
    numbers, seen = records(NUMBERS)[0], []
    numbers.extra = extra
    serve = interpreted(index.compose)

    def compose(view):
        if len(view.running) == 1 and len(view.waiting) == 1 and not seen:
            decode(view, view.running)
            seen.append(look(view, 0.5, False, numbers))
            return 0.0
        return serve(view)

    workload = ls.Workload.from_arrays([0.0, 0.1], [4, 400], [9, 1])
    ls.simulate(dataclasses.replace(index, compose=compose), workload, ENGINE)
    return seen[0]


@pytest.mark.parametrize(("extra", "tokens", "seconds"), [(1e6, 2559, 3.5), (0.3, 511, 1.5), (0.0, 255, 1.25)])
def test_prefill_is_predicted_in_steps_as_long_as_the_numbers_allow(extra, tokens, seconds):
    # No target: the budget of 2560 tokens, the decode among them, is ten stairs of 0.25 s on top of 1 s. A step with
    # decodes lasts 1.25 s at least; 0.3 of that on top is one stair more.
    assert state_beside_a_decode(extra).seconds_per_token == pytest.approx(seconds / tokens)
