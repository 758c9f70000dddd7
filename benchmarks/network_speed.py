"""Speed of a network: 64 engines, 200 000 calls of agents whose prompts hold all that came before; one core."""

import resource
import time

import numpy as np

import baselines
import llmsched_env as ls
from baselines.routers import prefix_aware, session_affinity
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable

ENGINES, TASKS, CALLS = 64, 20_000, 10
RATE = 40.0  # tasks/s
ENGINE = ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic", prefix_caching=True)


def agents(tasks: int = TASKS, seed: int = 0) -> TaskTable:
    """Chains of calls: a first prompt of about 2 000 tokens, then tool results of about 300, answers of about 150."""
    rng = np.random.default_rng(seed)
    shape = (tasks, CALLS)
    added = 1 + rng.geometric(1 / 300, shape)
    added[:, 0] += rng.geometric(1 / 1700, tasks)
    output = rng.geometric(1 / 150, shape)
    after = np.cumsum(added + output, axis=1)  # tokens of the context as each call ends
    before = np.concatenate([np.zeros((tasks, 1), np.int64), after[:, :-1]], axis=1)
    call = np.arange(tasks * CALLS).reshape(shape)
    parent = np.where(np.arange(CALLS) > 0, call - 1, -1)
    calls = RequestTable.from_columns(
        arrival=np.repeat(np.cumsum(rng.exponential(1 / RATE, tasks)), CALLS),
        prompt_tokens=(before + added).ravel(),
        output_tokens=output.ravel(),
        session=np.repeat(np.arange(tasks), CALLS),
        parent=parent.ravel(),
        shared_tokens=before.ravel(),
    )
    delay = rng.exponential(2.0, shape)
    delay[:, 0] = 0.0
    edges = np.column_stack([call[:, :-1].ravel(), call[:, 1:].ravel()])
    return TaskTable.from_columns(calls, np.repeat(np.arange(tasks), CALLS), edges, delay.ravel())


def main() -> None:
    """Print a line for each router: seconds to load and run, and the most memory the process has held."""
    tasks = agents()
    for router in (session_affinity, prefix_aware):
        simulator = NetworkSimulator([ENGINE] * ENGINES, baselines.vllm_v1, router, record="requests")
        simulator.load(agents(10))
        simulator.advance(np.inf)  # compiles, or reads the disk cache
        start = time.perf_counter()
        simulator.load(tasks)
        loaded = time.perf_counter()
        simulator.advance(np.inf)
        end = time.perf_counter()
        result = simulator.result()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        hits = result.requests.prefix_hit.sum() / result.requests.prompt_tokens.sum()
        print(
            f"network, {router.name}: {loaded - start:.2f} s to load, {end - loaded:.2f} s for {len(tasks):,} calls on "
            f"{ENGINES} engines and {result.end:,.0f} simulated s, {hits:.0%} of prompt tokens cached, "
            f"{memory:.2f} GiB at most"
        )


if __name__ == "__main__":
    main()
