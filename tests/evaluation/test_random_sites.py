"""Random sites to train and test on."""

import numpy as np

import llmsched_env as ls
from llmsched_env.evaluation.random_sites import random_site
from llmsched_env.policies.learned_index import learned_index
from llmsched_env.results.metrics import within_limits


def test_random_sites_differ_and_can_be_met():
    rng = np.random.default_rng(3)
    sites = [random_site(rng) for _ in range(12)]
    assert len({site.engine for site in sites}) > 3
    mistaken = [site.engine for site in sites if site.engine.believed_batch_time is not None]
    assert 2 < len(mistaken) < 10 and all(engine.step_noise > 0 for engine in mistaken)
    for site in sites:
        table = site.at(0.9).sample(1)
        assert len(table) and np.isfinite(table.ttft_slo).all()
        apart = ls.Workload.from_table(table.rows(0, 40).at(1e4 * np.arange(len(table.rows(0, 40)))), site.name)
        rows = ls.simulate(learned_index, apart, site.engine, record="requests").requests
        assert within_limits(rows, None).mean() > 0.9
