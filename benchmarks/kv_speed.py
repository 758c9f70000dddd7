"""Speed of the engine with and without KV blocks, in turns within one run: no records, one core.

The requests of `engine_speed.py` on vLLM V1 and Sarathi-Serve: with unlimited memory, with 2 700 blocks of 16 tokens
(enough for load 0.9, with few preemptions), with prefix caching on top, and with prefix caching and requests of which
three in four begin with the tokens of an earlier one. Ratios are to unlimited memory.
"""

import math
import time
from dataclasses import replace

import numpy as np

import baselines
import llmsched_env as ls
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.tables.request_table import RequestTable

HORIZON, ROUNDS, BLOCKS = 2000.0, 5, 2700


def shared(table: RequestTable) -> RequestTable:
    """The same requests, three in four of which share 96 tokens with the one before."""
    n = np.arange(len(table))
    parent = np.where(n % 4 > 0, n - 1, -1)
    return replace(table, parent=parent, shared_tokens=np.where(parent >= 0, 96, 0))


def main() -> None:
    """Print a line for each scheduler and memory: requests per second, best of several rounds, and its ratio."""
    unlimited = ls.EngineConfig(ls.Staircase(c=0.01128, a=0.03547, b0=128), token_budget=512)
    paged = replace(unlimited, kv_blocks=BLOCKS)
    caching = replace(paged, prefix_caching=True)
    table = ls.Workload.poisson(rate=12.0, prompt_tokens=129, output_tokens=112, horizon=HORIZON).sample(seed=0)
    cases = {
        "unlimited memory": (unlimited, table),
        "KV blocks": (paged, table),
        "prefix caching": (caching, table),
        "prefix caching, shared prefixes": (caching, shared(table)),
    }
    for scheduler in (baselines.sarathi(token_budget=512), baselines.vllm_v1(token_budget=512)):
        simulators = {name: Simulator(engine, scheduler, record="off") for name, (engine, _) in cases.items()}
        best = dict.fromkeys(cases, math.inf)
        for _ in range(ROUNDS):
            for name, simulator in simulators.items():
                start = time.perf_counter()
                simulator.load(0, cases[name][1])
                simulator.advance(0, math.inf)
                best[name] = min(best[name], time.perf_counter() - start)
        for name, seconds in best.items():
            rate, ratio = len(table) / seconds, best["unlimited memory"] / seconds
            print(f"{scheduler.name}, {name}: {rate:,.0f} requests/s, {ratio:.2f} of unlimited memory")


if __name__ == "__main__":
    main()
