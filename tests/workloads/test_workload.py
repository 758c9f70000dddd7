"""Workload: one seed, one set of requests; scaling, windows and parts."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from scipy import stats

from llmsched_env.machine.batch_time import Staircase
from llmsched_env.machine.config import EngineConfig
from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import COLUMNS
from llmsched_env.theory import capacity, load
from llmsched_env.workloads import MMPP, Poisson, Workload, dist

ENGINE = EngineConfig(batch_time=Staircase(c=0.01128, a=0.03547, b0=128), token_budget=512)


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in COLUMNS)


def mixed(**changes):
    arguments = {
        "arrivals": MMPP([0.5, 2.0], mean_dwell=[10.0, 5.0]),
        "rate": 5.0,
        "prompt_tokens": dist.LogNormal(5, 1),
        "output_tokens": dist.Geometric(40),
        "horizon": 100.0,
    }
    return Workload.generated(**{**arguments, **changes})


def trace():
    return Workload.from_arrays([1.0, 2.0, 4.0, 6.0, 11.0], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1])


def test_a_seed_is_a_workload():
    assert same(mixed().sample(3), mixed().sample(3))
    assert not same(mixed().sample(3), mixed().sample(4))


def test_arrivals_lengths_and_predictions_have_streams_of_their_own():
    def predictor(rng, prompt, output):
        return output * rng.uniform(0.5, 1.5, len(output))

    plain, predicted = mixed().sample(5), mixed(predictor=predictor).sample(5)
    other_lengths = mixed(prompt_tokens=dist.Uniform(1, 9), output_tokens=7).sample(5)
    other_arrivals = mixed(arrivals=Poisson()).sample(5)
    for name in ("arrival", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(plain, name), getattr(predicted, name))
    ratio = predicted.predicted_output / predicted.output_tokens
    assert ratio.min() >= 0.5 and ratio.max() <= 1.5 and np.std(ratio) > 0.2
    assert np.isnan(plain.predicted_output).all()
    assert np.array_equal(plain.arrival, other_lengths.arrival)
    n = min(len(plain), len(other_arrivals))
    assert np.array_equal(plain.prompt_tokens[:n], other_arrivals.prompt_tokens[:n])
    assert np.array_equal(plain.output_tokens[:n], other_arrivals.output_tokens[:n])


def test_poisson_workload_of_constant_lengths():
    workload = Workload.poisson(rate=10.4, prompt_tokens=129, output_tokens=112, horizon=90.0, slo=SLO(0.5, 0.05, 9.0))
    table = workload.sample(seed=0)
    assert set(table.prompt_tokens) == {129} and set(table.output_tokens) == {112}
    assert set(table.ttft_slo) == {0.5} and set(table.tpot_slo) == {0.05}
    assert table.horizon == 90.0 and table.arrival[-1] < 90.0
    assert (workload.rate, workload.name, workload.slo, workload.load) == (10.4, "poisson", SLO(0.5, 0.05, 9.0), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": -1.0}, r"rate must be a finite number > 0 \(requests/s\), got -1"),
        ({"rate": math.nan}, "rate must be .* got nan"),
        ({"horizon": 0.0}, r"horizon must be a finite number > 0 \(s\), got 0"),
        ({"prompt_tokens": 0}, "prompt_tokens must be an integer >= 1"),
        ({"output_tokens": 1.5}, "output_tokens must be an integer >= 1 or a distribution"),
        ({"rank_correlation": 1.1}, "rank_correlation must be .* >= -1 and <= 1, got 1.1"),
        ({"slo": 0.5}, "slo must be an SLO or None, got 0.5"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        mixed(**changes)


def test_seeds_are_whole_numbers():
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        mixed().sample(-1)


def test_rank_correlation_is_that_of_the_samples_and_of_the_length_sample():
    workload = mixed(rank_correlation=-0.6, rate=200.0)
    table = workload.sample(0)
    standard_error = 1.1 / math.sqrt(len(table))  # Bonett and Wright (2000): sqrt((1 + r^2/2)/n)
    for prompt, output in ((table.prompt_tokens, table.output_tokens), workload.length_sample()):
        correlation = stats.spearmanr(prompt, output).statistic
        assert abs(correlation + 0.6) <= 4 * standard_error


@pytest.mark.parametrize("rank_correlation", [0.0, 0.5])
def test_length_sample_has_the_means_of_the_laws(rank_correlation):
    workload = mixed(rank_correlation=rank_correlation)
    prompt, output = workload.length_sample()
    assert prompt.dtype == output.dtype == np.int64
    assert output.mean() == pytest.approx(40, rel=0.005)
    assert prompt.mean() == pytest.approx(dist.LogNormal(5, 1).mean, rel=0.005)
    again = workload.length_sample()
    assert np.array_equal(again[0], prompt) and np.array_equal(again[1], output)


def test_independent_lengths_stay_independent_in_the_length_sample():
    prompt, output = mixed().length_sample()
    assert np.mean(prompt * output) == pytest.approx(prompt.mean() * output.mean(), rel=0.005)


def test_fixed_arrays_are_the_same_for_every_seed():
    workload = trace()
    assert workload.sample(0) is workload.sample(99)
    assert workload.rate == 4 / 10 and workload.name == "arrays"
    assert workload.length_sample()[0].tolist() == [1, 2, 3, 4, 5]


def test_arrays_carry_all_columns():
    table = Workload.from_arrays(
        [0, 1], [3, 3], [2, 2], client=[1, 0], klass=[2, 0], priority=[-1, 1], predicted_output=[math.nan, 4.5]
    ).sample(0)
    assert table.client.tolist() == [1, 0] and table.klass.tolist() == [2, 0] and table.priority.tolist() == [-1, 1]
    assert np.isnan(table.predicted_output[0]) and table.predicted_output[1] == 4.5


def test_targets_of_arrays_are_shared_or_by_request():
    shared = Workload.from_arrays([0, 1], [3, 3], [2, 2], slo=SLO(0.5))
    assert shared.slo == SLO(0.5)
    assert shared.sample(0).ttft_slo.tolist() == [0.5, 0.5] and np.isinf(shared.sample(0).tpot_slo).all()
    each = Workload.from_arrays([0, 1], [3, 3], [2, 2], slo=([1.0, 2.0], [0.1, math.inf]))
    assert each.slo is None and each.sample(0).ttft_slo.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="pair of arrays"):
        Workload.from_arrays([0, 1], [3, 3], [2, 2], slo=([1.0, 2.0],))
    with pytest.raises(ValueError, match="slo must be an SLO"):
        Workload.from_arrays([0, 1], [3, 3], [2, 2], slo=[1.0, 2.0])


def test_empty_arrays_are_refused():
    with pytest.raises(ValueError, match="arrival must hold at least one request, got none"):
        Workload.from_arrays([], [], [])


def test_scaling_arrays_stretches_time():
    scaled = trace().scaled(rate=0.8)
    assert scaled.rate == pytest.approx(0.8)
    assert scaled.sample(0).arrival == pytest.approx(np.array([0.5, 1.0, 2.0, 3.0, 5.5]))
    part = trace().split((0.5, 0.5))[0].scaled(rate=10.0)
    assert part.sample(0).horizon == pytest.approx(5 * trace().split((0.5, 0.5))[0].rate / 10)


def test_scaling_a_generator_sets_its_rate():
    scaled = mixed().scaled(rate=2.5)
    assert scaled.rate == 2.5 and scaled.sample(0).horizon == 100.0
    assert same(mixed(rate=2.5).sample(8), scaled.sample(8))


@pytest.mark.parametrize(("arrival", "rate"), [([3.0], math.nan), ([3.0, 3.0], math.inf)])
def test_arrivals_without_spread_have_no_rate_to_scale(arrival, rate):
    workload = Workload.from_arrays(arrival, [1] * len(arrival), [1] * len(arrival))
    assert workload.rate == pytest.approx(rate, nan_ok=True)
    with pytest.raises(ValueError, match="arrivals do not spread over time"):
        workload.scaled(rate=1.0)
    with pytest.raises(ValueError, match="arrivals do not spread over time"):
        workload.at_load(0.5, ENGINE)


@pytest.mark.parametrize("workload", [trace(), mixed()], ids=["arrays", "generated"])
def test_at_load_is_relative_to_capacity_and_remembered_until_scaled(workload):
    loaded = workload.at_load(0.9, ENGINE)
    assert loaded.load == 0.9 and loaded.rate == pytest.approx(0.9 * capacity(ENGINE, workload))
    assert load(loaded, ENGINE) == pytest.approx(0.9)
    assert loaded.scaled(rate=1.0).load is None and workload.load is None
    with pytest.raises(ValueError, match="load must be a finite number > 0, got 0"):
        workload.at_load(0, ENGINE)


def test_generator_episodes_are_fresh_and_follow_the_generator_passed():
    workload, rng = mixed(), np.random.default_rng(1)
    first, second = workload.episode(rng, 20.0), workload.episode(rng, 20.0)
    assert not same(first, second) and first.horizon == 20.0 and first.arrival[-1] < 20.0
    assert same(first, workload.episode(np.random.default_rng(1), 20.0))


def test_trace_episodes_are_windows_placed_uniformly():
    workload = Workload.from_arrays(np.arange(0, 100.5, 0.5), np.arange(1, 202), np.ones(201, int))
    rng = np.random.default_rng(0)
    starts = []
    for _ in range(500):
        window = workload.episode(rng, 10.0)
        assert len(window) == 20 and window.horizon == 10.0 and 0 <= window.arrival[0] < 0.5
        starts.append((window.prompt_tokens[0] - 1) * 0.5 - window.arrival[0])
        assert np.diff(window.prompt_tokens).tolist() == [1] * 19
    assert stats.kstest(starts, stats.uniform(0, 90).cdf).pvalue > 1e-3


def test_a_trace_shorter_than_the_episode_is_taken_whole():
    window = trace().episode(np.random.default_rng(0), 60.0)
    assert window.arrival.tolist() == [0.0, 1.0, 3.0, 5.0, 10.0]
    assert window.horizon == 10.0


def test_parts_are_consecutive_in_time_and_lose_nothing():
    arrival = np.sort(np.random.default_rng(2).uniform(5, 105, 400))
    workload = Workload.from_arrays(arrival, np.arange(1, 401), np.ones(400, int), slo=SLO(1.0))
    parts = workload.split((0.6, 0.2, 0.2))
    tables = [part.sample(0) for part in parts]
    assert np.concatenate([table.prompt_tokens for table in tables]).tolist() == list(range(1, 401))
    span = arrival[-1] - arrival[0]
    assert [table.horizon for table in tables] == pytest.approx([0.6 * span, 0.2 * span, 0.2 * span])
    begins = arrival[0] + span * np.array([0.0, 0.6, 0.8])
    whole = np.concatenate([table.arrival + begin for table, begin in zip(tables, begins, strict=True)])
    assert whole == pytest.approx(arrival)
    assert parts[2].slo == SLO(1.0) and parts[0].name == "arrays"


def test_generators_return_themselves_as_parts():
    workload = mixed()
    assert [part.source for part in workload.split()] == [workload.source] * 3


def test_bad_fractions_are_refused():
    with pytest.raises(ValueError, match="split fractions must sum to 1, got"):
        trace().split((0.5, 0.4))
    with pytest.raises(ValueError, match="split fractions must be a finite number > 0"):
        trace().split((1.0, 0.0))
    with pytest.raises(ValueError, match="leave requests in every part"):
        trace().split((0.6, 0.2, 0.2))


def test_workloads_are_immutable_and_readable():
    workload = trace()
    with pytest.raises(FrozenInstanceError):
        workload.name = "other"
    assert repr(workload) == "<Workload arrays: 5 requests in 10 s>"
    loaded = Workload.poisson(10.4, 129, 112, 90.0, SLO(0.5)).at_load(0.5, ENGINE)
    assert "poisson" in repr(loaded) and "129 + 112 tokens" in repr(loaded) and "load 0.5" in repr(loaded)
