"""Predicted output lengths: calibrated error, streams of their own."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

import llmsched_env as ls

CHAT = ls.preset("azure-chat", rate=20.0, horizon=200.0)
N_SE = 4  # standard errors allowed


def sampled(workload, seed=3):
    table = workload.sample(seed)
    return table, table.predicted_output


def test_the_error_is_log_normal_with_the_given_mean_and_deviation():
    table, predicted = sampled(CHAT.with_predictor(ls.LengthPredictor(0.4, log_bias=0.3)))
    ratio = np.log(predicted / table.output_tokens)[table.output_tokens > 40]  # none of these is cut at one token
    n = len(ratio)
    assert ratio.mean() == pytest.approx(0.3, abs=N_SE * 0.4 / math.sqrt(n))
    assert ratio.std() == pytest.approx(0.4, abs=N_SE * 0.4 / math.sqrt(2 * n))
    assert (predicted >= 1).all()


@pytest.mark.parametrize("wanted", [0.3, 0.56, 0.9])
@pytest.mark.parametrize(("name", "measure"), [("spearman", spearmanr), ("kendall", kendalltau)])
def test_calibration_reaches_the_rank_correlation(name, measure, wanted):
    predictor = ls.LengthPredictor.calibrated(CHAT, **{name: wanted})
    table, predicted = sampled(CHAT.with_predictor(predictor))
    # The sample of one seed has an error of about 1/sqrt(n), with n near 4000 requests.
    assert measure(table.output_tokens, predicted).statistic == pytest.approx(wanted, abs=N_SE / math.sqrt(len(table)))


def test_perfect_correlation_is_the_truth():
    predictor = ls.LengthPredictor.calibrated(CHAT, spearman=1)
    table, predicted = sampled(CHAT.with_predictor(predictor))
    assert predictor.log_sd == 0 and np.array_equal(predicted, table.output_tokens)


def test_coverage_is_the_share_of_requests_with_a_prediction():
    table, predicted = sampled(CHAT.with_predictor(ls.LengthPredictor(0.2, coverage=0.75)))
    share = np.mean(~np.isnan(predicted))
    assert share == pytest.approx(0.75, abs=N_SE * math.sqrt(0.75 * 0.25 / len(table)))


@pytest.mark.parametrize("workload", [CHAT, ls.preset("multi-tenant", horizon=60.0), ls.preset("swe-agent", 5.0, 60.0)])
def test_predictions_change_nothing_else_and_follow_the_seed(workload):
    predicted = workload.with_predictor(ls.LengthPredictor(0.5))
    plain, first, again, other = workload.sample(1), predicted.sample(1), predicted.sample(1), predicted.sample(2)
    for name in ("arrival", "prompt_tokens", "output_tokens", "klass", "session", "ttft_slo"):
        assert np.array_equal(getattr(plain, name), getattr(first, name))
    assert np.array_equal(first.predicted_output, again.predicted_output)
    n = min(len(first), len(other))
    assert not np.array_equal(first.predicted_output[:n], other.predicted_output[:n])
    assert predicted.rate == workload.rate and predicted.scaled(3.0).rate == pytest.approx(3.0)
    assert predicted.with_slo(ls.SLO(ttft=1.0)).sample(1).ttft_slo[0] == 1.0


def test_fixed_requests_get_predictions_by_seed_and_in_parts():
    workload = ls.Workload.from_arrays([0, 1, 2, 3], [5] * 4, [10] * 4).with_predictor(ls.LengthPredictor(1.0))
    assert not np.array_equal(workload.sample(0).predicted_output, workload.sample(1).predicted_output)
    first, second = workload.split((0.5, 0.5))
    assert np.isfinite(first.sample(0).predicted_output).all() and len(second.sample(0)) == 2


def test_a_later_predictor_replaces_the_earlier():
    workload = CHAT.with_predictor(ls.LengthPredictor(1.0)).with_predictor(ls.LengthPredictor(0.0))
    table, predicted = sampled(workload)
    assert np.array_equal(predicted, table.output_tokens)


def test_episodes_have_predictions():
    table = CHAT.with_predictor(ls.LengthPredictor(0.0)).episode(np.random.default_rng(0), 30.0)
    assert len(table) and np.array_equal(table.predicted_output, table.output_tokens)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ls.LengthPredictor(-1), "log_sd"),
        (lambda: ls.LengthPredictor(1, coverage=2), "coverage"),
        (lambda: ls.LengthPredictor.calibrated(CHAT), "one of spearman and kendall"),
        (lambda: ls.LengthPredictor.calibrated(CHAT, spearman=0.5, kendall=0.5), "one of spearman and kendall"),
        (lambda: ls.LengthPredictor.calibrated(CHAT, kendall=0), "kendall"),
        (lambda: ls.LengthPredictor.calibrated(ls.Workload.poisson(1, 5, 5, 9), kendall=0.5), "all its outputs are 5"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
