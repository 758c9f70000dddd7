"""Several clients: each is drawn by itself, and they are merged by time."""

import numpy as np
import pytest

from llmsched_env.slo import SLO
from llmsched_env.workloads import Client, Gamma, Lengths, Poisson, Workload, dist
from llmsched_env.workloads.clients import ManyClients

CHAT = Client(Poisson(), 4.0, (Lengths(dist.Constant(10), dist.Constant(2)),), slo=SLO(1.0))
BATCH = Client(
    Gamma(2.0),
    1.0,
    (Lengths(dist.Constant(100), dist.Constant(5), 3.0), Lengths(dist.Constant(200), dist.Constant(6), 1.0)),
    epoch=50.0,
    klass=1,
)
BOTH = ManyClients((CHAT, BATCH), 200.0)


def test_requests_carry_their_clients_class_targets_and_lengths():
    table = BOTH.sample(0)
    assert (np.diff(table.arrival) >= 0).all()
    chat, batch = table.client == 0, table.client == 1
    assert (
        set(table.prompt_tokens[chat]) == {10} and set(table.klass[chat]) == {0} and set(table.ttft_slo[chat]) == {1.0}
    )
    assert set(table.klass[batch]) == {1} and np.isinf(table.ttft_slo[batch]).all()
    first = table.arrival[batch] // 50 % 2 == 0
    assert set(table.prompt_tokens[batch][first]) == {100} and set(table.prompt_tokens[batch][~first]) == {200}


def test_a_client_does_not_depend_on_the_others():
    alone = ManyClients((CHAT,), 200.0).sample(3)
    table = BOTH.sample(3)
    assert np.array_equal(table.arrival[table.client == 0], alone.arrival)


def test_rates_scale_together_and_lengths_have_the_clients_shares():
    assert BOTH.rate == 5.0 and BOTH.at_rate(10.0).rate == 10.0
    assert BOTH.at_rate(10.0).at_rate(2.5).sample(0).client.mean() == pytest.approx(0.2, abs=0.1)
    prompt, _ = BOTH.lengths()
    assert [np.mean(prompt == tokens) for tokens in (10, 100, 200)] == pytest.approx([0.8, 0.15, 0.05], abs=1e-3)
    workload = Workload.of_clients([CHAT, BATCH], horizon=200.0)
    assert workload.scaled(2.0).rate == 2.0 and np.array_equal(workload.sample(1).client, BOTH.sample(1).client)
    assert set(BOTH.with_slo(SLO(2.0)).sample(0).ttft_slo) == {2.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Client(Poisson(), 0.0, CHAT.lengths), "client rate must be a finite number > 0"),
        (lambda: Client(Poisson(), 1.0, ()), "at least one law"),
        (lambda: ManyClients((), 5.0), "at least one client"),
    ],
)
def test_bad_clients_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
