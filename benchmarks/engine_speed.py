"""Speed of the bare engine on the workload of Fig. 1 of arXiv 2504.07347 at 12 requests/s: no records, one core.

Requests of 129 prompt and 112 output tokens, Sarathi-Serve with a budget of 512, the paper's batch times. Loading the
requests into the engine is included; drawing them is not.
"""

import math
import time

import baselines
import llmsched_env as ls
from llmsched_env.simulator.simulator import Simulator

HORIZON, ROUNDS = 8000.0, 5


def main() -> None:
    """Print one line: requests, batches and simulated seconds per second, best of several rounds."""
    engine = ls.EngineConfig(ls.Staircase(c=0.01128, a=0.03547, b0=128), token_budget=512)
    scheduler = baselines.sarathi(token_budget=512)
    workload = ls.Workload.poisson(rate=12.0, prompt_tokens=129, output_tokens=112, horizon=HORIZON)
    table = workload.sample(seed=0)
    simulator = Simulator(engine, scheduler, record="off")
    best = math.inf
    for _ in range(ROUNDS):
        start = time.perf_counter()
        simulator.load(0, table)
        simulator.advance(0, math.inf)
        best = min(best, time.perf_counter() - start)
    batches = len(ls.simulate(scheduler, workload, engine, seed=0).batches)
    print(
        f"engine: {len(table) / best:,.0f} requests/s, {batches / best:,.0f} batches/s, "
        f"{simulator.clock(0) / best:,.0f} simulated s/s"
    )


if __name__ == "__main__":
    main()
