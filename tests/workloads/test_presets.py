"""Presets are the published numbers, and their samples follow them."""

import json
import math

import numpy as np
import pytest

from llmsched_env.slo import SLO
from llmsched_env.workloads import load_trace, preset

NAMES = ["azure-chat", "azure-code"]


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_reference_table(shared, name):
    reference = json.loads((shared / "traces/workload_presets.json").read_text())
    expected, source = reference["presets"][name], preset(name).source
    assert list(source.prompt_tokens.tokens) == expected["prompt_tokens_quantiles"]
    assert list(source.output_tokens.tokens) == expected["output_tokens_quantiles"]
    assert list(source.prompt_tokens.levels) == reference["quantile_levels_default"]
    assert source.rank_correlation == expected["rank_correlation"]
    assert preset(name).rate == expected["arrival"]["native_rate_per_s"]
    assert list(source.arrivals.rates_relative) == expected["arrival"]["rates_relative"]
    for target, numbers in expected["slo"].items():
        assert preset(name, slo=target).slo == SLO(numbers["ttft_s"], numbers["tpot_s"])


@pytest.mark.parametrize("name", NAMES)
def test_sampled_lengths_follow_the_quantile_table(name):
    workload = preset(name, rate=50.0)
    table = workload.sample(0)
    n = len(table)
    for law, tokens in (
        (workload.source.prompt_tokens, table.prompt_tokens),
        (workload.source.output_tokens, table.output_tokens),
    ):
        for level, knot in zip(law.levels[1:-1], law.tokens[1:-1], strict=True):
            p, below, upto = level / 100, np.mean(tokens < knot), np.mean(tokens <= knot)
            slack = 4 * math.sqrt(p * (1 - p) / n)
            assert below - slack <= p <= upto + slack, (level, knot)


@pytest.mark.parametrize(("name", "kind"), [("azure-chat", "conv"), ("azure-code", "code")])
def test_presets_resemble_the_slice_of_their_trace(shared, name, kind):
    (path,) = (shared / "traces/azure_2023").glob(f"*_{kind}.*.csv")
    trace, drawn = load_trace(path).sample(0), preset(name, rate=20.0).sample(1)
    for column in ("prompt_tokens", "output_tokens"):
        medians = [np.median(getattr(table, column)) for table in (trace, drawn)]
        assert medians[0] == pytest.approx(medians[1], rel=0.3)


def test_code_arrivals_are_far_burstier_than_chat():
    def dispersion(name):
        counts = [np.histogram(preset(name).sample(seed).arrival, np.arange(0, 601, 10))[0] for seed in range(20)]
        return np.var(counts) / np.mean(counts)

    assert 1.5 < dispersion("azure-chat") < 8
    assert dispersion("azure-code") > 30


def test_arguments_replace_the_defaults():
    workload = preset("azure-chat", rate=8.0, horizon=50.0, slo=None)
    assert (workload.rate, workload.slo, workload.sample(0).horizon, workload.name) == (8.0, None, 50.0, "azure-chat")
    assert preset("azure-chat", slo=SLO(3.0)).slo == SLO(3.0)
    assert preset("azure-chat").slo == SLO(1.0, 0.1)


def test_unknown_names_list_what_exists():
    with pytest.raises(ValueError, match="'azure-cht'; did you mean 'azure-chat'"):
        preset("azure-cht")
    with pytest.raises(ValueError, match="known: 'azure-chat', 'azure-code'"):
        preset("xyz")
    with pytest.raises(ValueError, match="slo of preset azure-code .*known: 'default', 'strict'"):
        preset("azure-code", slo="xyz")
    with pytest.raises(ValueError, match="rate must be a finite number > 0"):
        preset("azure-chat", rate=-1.0)
