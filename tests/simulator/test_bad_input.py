"""Bad input is refused before any work, with the field, the value and what is allowed."""

import dataclasses
import math

import pytest

import baselines
import llmsched_env as ls

LAW = ls.Staircase(c=0.5, a=0.5, b0=128)
ENGINE = ls.EngineConfig(LAW)
WORKLOAD = ls.Workload.from_arrays([0.0], [4], [3])


def refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert all(part in str(error.value) for part in message), str(error.value)


ENGINE_FIELDS = [
    ({"batch_time": 0.05}, ["batch_time", "0.05", "Staircase, Hinge, Roofline or TabulatedLaw"]),
    ({"batch_time": None}, ["batch_time", "None", "Staircase, Hinge, Roofline or TabulatedLaw"]),
    ({"token_budget": 0}, ["token_budget", "0", ">= 1", "tokens"]),
    ({"token_budget": -5}, ["token_budget", "-5", ">= 1"]),
    ({"token_budget": 512.0}, ["token_budget", "512.0", "an integer"]),
    ({"token_budget": True}, ["token_budget", "True", "an integer"]),
    ({"token_budget": None}, ["token_budget", "None", "an integer"]),
    ({"max_num_seqs": 0}, ["max_num_seqs", "0", ">= 1", "requests"]),
    ({"max_num_seqs": math.inf}, ["max_num_seqs", "inf", "an integer"]),
    ({"kv_blocks": 0}, ["kv_blocks", "0", ">= 1", "blocks"]),
    ({"kv_blocks": "many"}, ["kv_blocks", "'many'", "an integer"]),
    ({"block_size": 0}, ["block_size", "0", ">= 1", "tokens"]),
    ({"first_token": "with_prompt"}, ["first_token", "'with_prompt'", "did you mean 'with_prefill'"]),
    ({"first_token": None}, ["first_token", "None", "'with_prefill', 'separate'"]),
    ({"schedule_ahead": 2}, ["schedule_ahead", "2", "<= 1"]),
    ({"schedule_ahead": -1}, ["schedule_ahead", "-1", ">= 0"]),
    ({"host_overhead": (0.1,)}, ["host_overhead", "(0.1,)", "(s per batch, s per request)"]),
    ({"host_overhead": (-0.1, 0.0)}, ["host_overhead per batch", "-0.1", ">= 0"]),
    ({"host_overhead": (0.0, math.nan)}, ["host_overhead per request", "nan", ">= 0"]),
    ({"host_overhead": 0.1}, ["host_overhead", "0.1", "(s per batch, s per request)"]),
    ({"prefix_caching": 1}, ["prefix_caching", "1", "True or False"]),
    ({"swap_blocks": -1}, ["swap_blocks", "-1", ">= 0", "blocks"]),
    ({"swap_blocks": 0.5}, ["swap_blocks", "0.5", "an integer"]),
    ({"swap_block_time": -0.1}, ["swap_block_time", "-0.1", ">= 0"]),
    ({"swap_blocks": 3, "prefix_caching": True}, ["swap_blocks", "0 with prefix_caching=True", "3"]),
]


@pytest.mark.parametrize(("fields", "message"), ENGINE_FIELDS, ids=str)
def test_engine(fields, message):
    refused(lambda: ls.EngineConfig(**{"batch_time": LAW, **fields}), message)
    if "batch_time" not in fields:
        refused(lambda: ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic", **fields), message)


def test_engines_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ENGINE.token_budget = 1


GPU = "llama-3.1-8b_h100-80gb_tp1_aic"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("llama-3.1-8b_h100-80gb_tp1_aix",), ["profile", "'llama-3.1-8b_h100-80gb_tp1_aix'", f"did you mean '{GPU}'"]),
        (("",), ["profile", "''"]),
        ((None,), ["profile", "None"]),
        ((GPU, 0.0), ["gpu_memory_utilization", "0", "> 0 and <= 1"]),
        ((GPU, 1.5), ["gpu_memory_utilization", "1.5", "> 0 and <= 1"]),
        ((GPU, math.nan), ["gpu_memory_utilization", "nan", "> 0 and <= 1"]),
        ((GPU, 0.1), ["gpu_memory_utilization", "0.1", "> 0."]),  # not even the weights fit
    ],
    ids=str,
)
def test_engine_of_a_gpu(arguments, message):
    refused(lambda: ls.EngineConfig.for_gpu(*arguments), message)


ROOFLINE = {"c": 0.5, "a_tok": 0.1, "a_tok_over": 0.1, "b0": 128, "a_kv": 0.0, "a_attn": 0.0, "a_ctx": 0.0}


@pytest.mark.parametrize(
    ("law", "fields", "message"),
    [
        (ls.Staircase, {"c": 0.5, "a": -0.1, "b0": 128}, ["Staircase.a", "-0.1", ">= 0"]),
        (ls.Staircase, {"c": math.nan, "a": 0.1, "b0": 128}, ["Staircase.c", "nan", "finite"]),
        (ls.Staircase, {"c": 0.5, "a": math.inf, "b0": 128}, ["Staircase.a", "inf", "finite"]),
        (ls.Staircase, {"c": 0.5, "a": 0.1, "b0": 0}, ["Staircase.b0", "0", ">= 1", "tokens"]),
        (ls.Staircase, {"c": 0.5, "a": 0.1, "b0": 12.5}, ["Staircase.b0", "12.5", "an integer"]),
        (ls.Staircase, {"c": 0.0, "a": 0.0, "b0": 1}, ["Staircase", "one token", "above 0 s"]),
        (ls.Staircase, {"c": -0.5, "a": 0.1, "b0": 1}, ["Staircase", "one token", "above 0 s"]),
        (ls.Hinge, {"c": 0.5, "a": -1.0, "b0": 128}, ["Hinge.a", "-1", ">= 0"]),
        (ls.Hinge, {"c": 0.0, "a": 1.0, "b0": 128}, ["Hinge", "one token", "above 0 s"]),
        (ls.Hinge, {"c": "fast", "a": 1.0, "b0": 128}, ["Hinge.c", "'fast'", "a finite number"]),
        *(
            (ls.Roofline, {**ROOFLINE, name: -0.25}, [f"Roofline.{name}", "-0.25", ">= 0"])
            for name in ("a_tok", "a_tok_over", "a_kv", "a_attn", "a_ctx")
        ),
        (ls.Roofline, {**ROOFLINE, "b0": -1}, ["Roofline.b0", "-1", ">= 1"]),
    ],
    ids=str,
)
def test_batch_time_laws(law, fields, message):
    refused(lambda: law(**fields), message)


def never(view):
    raise AssertionError("no work is done before the check")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: baselines.sarathi(token_budget=0), ["sarathi.token_budget", "0", ">= 1", "tokens"]),
        (lambda: baselines.sarathi(token_budget=10**9), ["sarathi.token_budget", "1e+09", "<= 16384"]),
        (lambda: baselines.sarathi(token_budget=math.nan), ["sarathi.token_budget", "nan"]),
        (lambda: baselines.sarathi(token_budget="512"), ["sarathi.token_budget", "'512'", "a number"]),
        (lambda: baselines.orca(max_num_seqs=0), ["orca.max_num_seqs", "0", ">= 1", "requests"]),
        (lambda: baselines.orca(token_buget=5), ["parameter of orca", "'token_buget'", "did you mean 'token_budget'"]),
        (lambda: ls.Scheduler("x", never, needs_lengths="yes"), ["needs_lengths", "'yes'", "'no'", "'true'"]),
        (lambda: ls.Scheduler("x", never, memory={"clients": ()}), ["memory", "'clients'", "did you mean 'client'"]),
        (lambda: ls.Scheduler("x", never, values={"a": 1.0}), ["parameter of x", "'a'", "known: none"]),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
def test_schedulers(make, message):
    refused(make, message)


ARGUMENTS = [
    ({"scheduler": "sarathi"}, ["scheduler", "'sarathi'", "Scheduler"]),
    ({"engine": None}, ["engine", "None", "EngineConfig"]),
    ({"engine": LAW}, ["engine", "Staircase", "EngineConfig"]),
    ({"workload": WORKLOAD.sample(0)}, ["workload", "Workload"]),
    ({"workload": None}, ["workload", "None", "Workload"]),
    ({"horizon": 0}, ["horizon", "0", "> 0"]),
    ({"horizon": -1.0}, ["horizon", "-1", "> 0"]),
    ({"horizon": math.nan}, ["horizon", "nan", "> 0"]),
    ({"horizon": math.inf}, ["horizon", "inf", "finite"]),
    ({"record": "everything"}, ["record", "'everything'", "'requests', 'batches', 'entries'"]),
    ({"record": "off"}, ["record", "'off'"]),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS, ids=lambda value: str(value)[:40])
def test_arguments_of_simulate_and_simulate_many(arguments, message):
    good = {"scheduler": ls.Scheduler("never", never), "workload": WORKLOAD, "engine": ENGINE}
    refused(lambda: ls.simulate(**{**good, **arguments}), message)
    refused(lambda: ls.simulate_many(**{**good, **arguments}, seeds=range(2), progress=False), message)


@pytest.mark.parametrize("seed", [-1, 0.5, None, "0"])
def test_seeds(seed):
    refused(lambda: ls.simulate(baselines.orca, WORKLOAD, ENGINE, seed=seed), ["seed", repr(seed), ">= 0"])
    seeds = [0, seed]
    refused(lambda: ls.simulate_many(baselines.orca, WORKLOAD, ENGINE, seeds, progress=False), ["seeds", repr(seed)])
