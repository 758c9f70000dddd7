"""Gate-and-route: the fluid plan by hand, and shares of time that keep to it."""

import numpy as np
import pytest

import llmsched_env as ls
from baselines.flow_control.gate_and_route import gate_and_route, plan
from llmsched_env.theory import gate_plan

ENGINE = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1))


def simulate(scheduler, n, prompt, output, klass=None, horizon=None):
    workload = ls.Workload.from_arrays(np.zeros(n), prompt, output, klass=klass)
    return ls.simulate(scheduler, workload, ENGINE, record="entries", interpreted=True, horizon=horizon)


def test_the_plan_balances_prefill_and_decode():
    # Prompts of one chunk, outputs of 4, 3 seats, all batches 1 s: x prompts per second leave (2 x + 3 (1 - x))/4
    # outputs per second, so x = 0.6 if more arrive.
    full = gate_plan([5.0], [8], [4], 1.0, 1.0, chunk=8, seats=3)
    assert full.prefilling == pytest.approx([0.6]) and full.throughput == pytest.approx([0.6])
    assert full.decoding_mixed + full.decoding_solo == pytest.approx([4 * 0.6])
    assert full.value == pytest.approx(0.6 * 12)
    two = gate_plan([5.0], [8], [4], 1.0, 1.0, chunk=8, seats=3, engines=2)
    assert two.prefilling == pytest.approx([1.2])
    assert gate_plan([0.25], [8], [4], 1.0, 1.0, chunk=8, seats=3).prefilling == pytest.approx([0.25])


def test_the_plan_leaves_the_cheaper_class_out():
    fluid = gate_plan([5.0, 5.0], [8, 8], [4, 4], 1.0, 1.0, chunk=8, seats=3, values=[1.0, 2.0])
    assert fluid.prefilling == pytest.approx([0.0, 0.6], abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rates": [1.0, 2.0]}, "one entry for each class"), ({"seats": 0}, "seats"), ({"mixed_seconds": 0}, "mixed_s")],
)
def test_bad_plans_are_refused(change, message):
    arguments = {"rates": [1.0], "prompt_tokens": [8], "output_tokens": [4], "mixed_seconds": 1.0, "solo_seconds": 1.0}
    with pytest.raises(ValueError, match=message):
        gate_plan(**{**arguments, "chunk": 8, "seats": 3, **change})


def test_a_batch_holds_one_chunk_of_one_prompt():
    batches = simulate(gate_and_route(chunk=4), 3, [8, 4, 4], [9, 9, 9]).batches
    assert batches.prefill_tokens[:5].tolist() == [4, 4, 4, 4, 0]
    assert batches.decode_tokens[:5].tolist() == [0, 0, 1, 2, 3]


def test_a_class_gets_its_share_of_time_and_no_more():
    # Both classes are backlogged; class 0 may take a quarter of the time, class 1 half of it: the rest is solo.
    klass = np.tile([0, 1], 300)
    scheduler = gate_and_route(chunk=4, target_0=0.25, target_1=0.5, window=20)
    rows = simulate(scheduler, 600, [4] * 600, [4] * 600, klass, horizon=400.0).batch_entries
    prompts = np.bincount(klass[rows.request[rows.is_prefill]], minlength=2)
    assert prompts / 400 == pytest.approx([0.25, 0.5], abs=0.03)


def test_classes_without_a_target_are_never_let_in():
    with pytest.warns(RuntimeWarning, match="stalled"):
        result = simulate(gate_and_route(target_1=0), 3, [4] * 3, [2] * 3, [1, 0, 0])
    assert result.requests.status.tolist() == ["active", "finished", "finished"]


def test_the_scheduler_of_a_plan_has_its_targets():
    scheduler = plan([5.0, 5.0], [8, 8], [4, 4], 1.0, 1.0, chunk=8, max_num_seqs=3, values=[1.0, 2.0])
    assert scheduler.values["target_0"] == 0.0
    assert scheduler.values["target_1"] == pytest.approx(0.6)
