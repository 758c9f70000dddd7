"""The time that decisions take is charged to the clock."""

import dataclasses

import numpy as np
import pytest

import baselines
import llmsched_env as ls
from llmsched_env.testing import check_run

ENGINE = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=64)


def deciding(per_batch, per_request):
    return dataclasses.replace(baselines.sarathi, decision_time=(per_batch, per_request))


def test_each_batch_lasts_as_long_as_its_decision_longer():
    # Two requests of three and two tokens: both are there in two batches, one in the third.
    workload = ls.Workload.from_arrays([0.0, 0.0], [4, 4], [3, 2])
    result = ls.simulate(deciding(0.5, 0.125), workload, ENGINE, interpreted=True)
    assert result.batches.duration.tolist() == [1.75, 1.75, 1.625]
    assert result.end == 5.125
    assert ls.simulate(baselines.sarathi, workload, ENGINE, interpreted=True).end == 3.0


def test_the_checks_know_of_it():
    workload = ls.Workload.poisson(rate=0.2, prompt_tokens=20, output_tokens=5, horizon=60.0)
    result = ls.simulate(deciding(0.2, 0.05), workload, ENGINE, record="entries", interpreted=True)
    assert check_run(result, deciding(0.2, 0.05)) == []
    assert check_run(dataclasses.replace(result, decision_time=(0.0, 0.0)), baselines.sarathi)


@pytest.mark.parametrize("seconds", [(-1.0, 0.0), (0.0, np.inf)])
def test_a_decision_takes_a_time_of_zero_or_more(seconds):
    with pytest.raises(ValueError, match="decision_time"):
        deciding(*seconds)
