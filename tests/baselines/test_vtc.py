"""The virtual token counter: its fairness bound, and its lift rule by hand."""

import numpy as np
import pytest

import llmsched_env as ls
from baselines import sarathi, vtc

LAW = ls.Staircase(c=1.0, a=0.0, b0=1)


def order(scheduler, arrival, client, token_budget=4, prompt=4):
    """Clients in order of service, where each request takes a batch of its own."""
    n = len(client)
    workload = ls.Workload.from_arrays(arrival, [prompt] * n, [1] * n, client=client)
    result = ls.simulate(scheduler, workload, ls.EngineConfig(LAW, token_budget=token_budget), interpreted=True)
    assert len(result.batches) == n
    return np.array(client)[np.argsort(result.requests.first_scheduled)].tolist()


# A request charges 4 for its prompt as it is admitted, and 2 for its token at the end of the batch: 6 in all.


def test_who_comes_into_the_queue_is_lifted_to_the_least_in_it():
    # At 5 s client 0 has 30. Client 1 comes with 30 too, not with 0: they take turns. Credit would give it 3 at once.
    arrival, client = [0.0] * 10 + [4.5] * 3, [0] * 10 + [1] * 3
    assert order(vtc, arrival, client) == [0] * 5 + [0, 1, 0, 1, 0, 1] + [0, 0]


def test_who_comes_into_an_empty_queue_is_lifted_to_the_client_that_left_it_last():
    # Client 0 leaves with 18. Client 1 comes with 18 at 5 s, and so does client 0 again.
    arrival, client = [0.0] * 3 + [5.0] * 6, [0] * 3 + [1] * 4 + [0] * 2
    assert order(vtc, arrival, client) == [0, 0, 0, 1, 0, 1, 0, 1, 1]


def test_the_least_is_that_of_a_client_in_the_queue():
    # At 1 s client 0 has 6 and client 1, which waits, nothing. Client 2 is lifted to the least of both, nothing too.
    arrival, client = [0.0] * 6 + [0.5] * 2, [0] * 3 + [1] * 3 + [2] * 2
    assert order(vtc, arrival, client)[:6] == [0, 1, 2, 0, 1, 2]


def test_outputs_count_twice():
    # Client 0 asks for 1 + 4 tokens (9), client 1 for 7 + 1 (9): they take turns. By prompts alone client 0 would lead.
    workload = ls.Workload.from_arrays([0.0] * 8, [1, 7] * 4, [4, 1] * 4, client=[0, 1] * 4)
    engine = ls.EngineConfig(LAW, max_num_seqs=1, token_budget=8)
    for weight, first in ((2.0, [0, 1, 2, 3]), (0.0, [0, 1, 2, 4])):
        rows = ls.simulate(vtc(output_weight=weight), workload, engine, interpreted=True).requests
        assert np.argsort(rows.first_scheduled)[:4].tolist() == first


def lead(scheduler):
    """Service of client 0 over that of client 1 at the end of every batch while both wait; and the longest prompt."""
    n = 400
    rng = np.random.default_rng(0)
    prompt = np.where(np.arange(n) % 2, rng.integers(1, 30, n), rng.integers(50, 200, n))
    output = np.where(np.arange(n) % 2, rng.integers(1, 40, n), rng.integers(30, 90, n))
    client = np.arange(n) % 2
    workload = ls.Workload.from_arrays(np.zeros(n), prompt, output, client=client)
    engine = ls.EngineConfig(LAW, token_budget=128, kv_blocks=125, block_size=16)
    result = ls.simulate(scheduler, workload, engine, record="entries")
    entries, sign = result.batch_entries, np.where(client == 0, 1, -1)
    num = len(result.batches)
    admitted = np.searchsorted(result.batches.start, result.requests.first_scheduled)
    change = np.bincount(admitted, sign * prompt, num)
    left = prompt.copy()
    for entry in entries:
        left[entry.request] -= entry.tokens if entry.is_prefill else 0
        if not entry.is_prefill or left[entry.request] == 0:
            change[entry.batch] += 2 * sign[entry.request]
    both_wait = min(admitted[client == 0].max(), admitted[client == 1].max())
    return np.cumsum(change)[:both_wait], prompt.max()


def test_two_clients_that_both_wait_get_the_same_service_within_the_bound():
    # |W_f - W_g| <= 2 max(w_p L_in, w_q M) over any interval (the bound of the paper), M: tokens that the memory holds.
    service, longest = lead(vtc)
    bound = 2 * max(longest, 2 * 125 * 16)
    assert service.max() - min(0, service.min()) <= bound and len(service) > 100
    assert np.ptp(lead(sarathi)[0]) > bound


@pytest.mark.parametrize("clients", [2, 5])
def test_shares_are_equal_though_one_client_asks_for_ten_times_as_much(clients):
    requests = [0] * 300 + [k for k in range(1, clients) for _ in range(30)]
    turns = order(vtc, [0.0] * len(requests), requests)
    shares = np.bincount(turns[: 30 * clients])
    assert shares.max() - shares.min() <= 1
