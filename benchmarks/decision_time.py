"""What a decision of the steered index policy takes, against what is charged to the simulated clock for it.

Runs from a nearly empty engine to a long queue, one core; the time of a batch includes its simulation, so that what is
printed is more than the decision alone. The line through the points is a least-squares fit.
"""

import math
import time

import numpy as np

import llmsched_env as ls
from llmsched_env.policies.learned_index import DECISION_TIME, PERCEPTRON, with_weights
from llmsched_env.simulator.simulator import Simulator

LOADS, HORIZON, ROUNDS = (0.5, 0.9, 1.2, 1.5, 2.0), 120.0, 3


def main() -> None:
    """Print time per batch by requests present, the fit, and what is charged."""
    engine = ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic")
    scheduler = with_weights(np.random.default_rng(0).normal(0, 0.1, PERCEPTRON.size))
    present, seconds = [], []
    for load in LOADS:
        table = ls.preset("azure-chat", horizon=HORIZON).at_load(load, engine).sample(seed=0)
        best, simulator = math.inf, Simulator(engine, scheduler, record="batches")
        for _ in range(ROUNDS):
            simulator.load(0, table)
            start = time.perf_counter()
            simulator.advance(0, math.inf)
            best = min(best, time.perf_counter() - start)
        batches = simulator.result(0, table, "azure-chat").batches
        present.append(float(batches.num_in_system.mean()))
        seconds.append(best / len(batches))
        print(f"load {load:.1f}: {1e6 * seconds[-1]:6.1f} us a batch with {present[-1]:5.0f} requests present")
    slope, first = np.polyfit(present, seconds, 1)
    print(f"fit: {1e6 * first:.1f} us and {1e6 * slope:.3f} us for each request present")
    print(f"charged: {1e6 * DECISION_TIME[0]:.1f} us and {1e6 * DECISION_TIME[1]:.3f} us")


if __name__ == "__main__":
    main()
