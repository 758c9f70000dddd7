import math

import numpy as np
import pytest

import llmsched_env as ls
from llmsched_env.envs.batch_queue import ORDERS, Knobs, parametric

ENGINE = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=100)  # 1 s a batch


def order_of_first_service(order, prompts, arrivals, slo):
    workload = ls.Workload.from_arrays(arrivals, prompts, [1] * len(prompts), slo=slo)
    result = ls.simulate(parametric(token_budget=20, order=ORDERS.index(order)), workload, ENGINE, record="entries")
    entries = result.batch_entries
    return list(dict.fromkeys(entries.request.tolist()))


def test_queue_orders():
    prompts = [20, 15, 10, 20, 5]
    arrivals = [0.0, 0.1, 0.2, 0.3, 0.4]  # all but the first are waiting at t = 1
    loose = ls.SLO(ttft=50.0)
    assert order_of_first_service("fcfs", prompts, arrivals, loose) == [0, 1, 2, 3, 4]
    assert order_of_first_service("shortest_prompt", prompts, arrivals, loose) == [0, 4, 2, 1, 3]
    deadlines = ([50.0, 9.0, 7.0, 5.0, 8.0], [math.inf] * 5)
    assert order_of_first_service("deadline", prompts, arrivals, deadlines) == [0, 3, 2, 4, 1]
    tight = ([50.0, 50.0, 0.5, 50.0, 50.0], [math.inf] * 5)  # request 2 is late at t = 1
    assert order_of_first_service("slo_aware", prompts, arrivals, tight) == [0, 4, 1, 3, 2]
    assert order_of_first_service("deadline", prompts, arrivals, None) == [0, 1, 2, 3, 4]


def test_admission_limit_counts_admitted_requests():
    workload = ls.Workload.from_arrays([0.0] * 5, [10] * 5, [4] * 5)
    result = ls.simulate(parametric(max_num_active_seqs=2), workload, ENGINE)
    assert result.batches.num_seqs.max() == 2
    assert result.drained


def test_held_prefill_waits_for_the_decodes():
    workload = ls.Workload.from_arrays([0.0, 0.5], [10, 10], [3, 1])
    held = ls.simulate(parametric(hold_prefill=1), workload, ENGINE)
    assert held.requests.first_token.tolist() == [1.0, 4.0]
    assert ls.simulate(parametric(), workload, ENGINE).requests.first_token.tolist() == [1.0, 2.0]


def test_levels_and_actions_agree():
    knobs = Knobs(token_budgets=(128, 512), admission_limits=(8, math.inf))
    action = knobs.encode(token_budget=512, max_num_active_seqs=8, order="deadline", hold_prefill=True)
    assert action.tolist() == [1, 0, 2, 1]
    assert knobs.params(action).tolist() == [512, 8, 2, 1, 0]
    assert knobs.space.nvec.tolist() == [2, 2, 4, 2]
    assert list(parametric.params) == ["token_budget", "max_num_active_seqs", "order", "hold_prefill", "watermark"]
    with pytest.raises(ValueError, match="token_budget must be one of the levels 128, 512, got 256"):
        knobs.encode(token_budget=256)


def test_a_watermark_is_a_fifth_knob_only_if_asked_for():
    knobs = Knobs((128, 512), (8, math.inf), watermarks=(0.0, 0.25))
    assert knobs.space.nvec.tolist() == [2, 2, 4, 2, 2]
    action = knobs.encode(token_budget=128, watermark=0.25)
    assert action.tolist() == [0, 1, 0, 0, 1]
    assert knobs.params(action).tolist() == [128, math.inf, 0, 0, 0.25]
    with pytest.raises(ValueError, match="watermark must be one of the levels 0, got 0.25"):
        Knobs().encode(watermark=0.25)
    with pytest.raises(ValueError, match="watermarks must be .* <= 1 .*got 1.5"):
        Knobs(watermarks=(0.0, 1.5))


@pytest.mark.parametrize("order", ["fcfs", "shortest_prompt"])
def test_a_watermark_keeps_blocks_free_for_all_but_the_first(order):
    # 8 blocks of 1 token, prompts of 3: two fit. A quarter of them free: 3 + 3 + 2 is just enough, 3 + 3 + 3 is not.
    workload = ls.Workload.from_arrays([0, 0], [3, 3], [2, 2])
    engine = ls.EngineConfig(ls.Staircase(c=0.5, a=0.5, b0=1000), kv_blocks=8, block_size=1)
    served = {
        watermark: ls.simulate(parametric(watermark=watermark, order=ORDERS.index(order)), workload, engine)
        for watermark in (0.0, 0.25, 0.375, 1.0)
    }
    assert {w: r.batches.num_seqs[0] for w, r in served.items()} == {0.0: 2, 0.25: 2, 0.375: 1, 1.0: 1}
    assert all(result.drained for result in served.values())


def test_every_setting_of_the_knobs_is_feasible_and_drains():
    rng = np.random.default_rng(0)
    workload = ls.Workload.from_arrays(
        np.sort(rng.uniform(0, 20, 40)), rng.integers(1, 90, 40), rng.integers(1, 20, 40)
    )
    engine = ls.EngineConfig(ls.Staircase(c=0.1, a=0.1, b0=32), token_budget=100, kv_blocks=20, block_size=8)
    for order in range(4):
        for hold in (0, 1):
            for budget, active in ((1, 1), (64, 3), (16384, math.inf)):
                scheduler = parametric(token_budget=budget, max_num_active_seqs=active, order=order, hold_prefill=hold)
                result = ls.simulate(scheduler, workload, engine)
                assert result.drained and result.batches.kv_blocks_used.max() <= 20
                assert (result.batches.prefill_tokens + result.batches.decode_tokens).max() <= min(budget, 100)
