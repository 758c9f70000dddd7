"""How far the bounds are from the hindsight optimum, and simple rules from it: the table of docs/bounds.md.

python benchmarks/bounds.py --requests 8 --instances 50
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from llmsched_env.theory import SlottedRequests, hindsight_optimum, lp_bound, volume_bound


def instance(rng: np.random.Generator, n: int, at_once: bool) -> SlottedRequests:
    """Memory of 10 to 16 tokens, prompts of 1 to 5, outputs as long as fit, arrivals at 0 or within the memory."""
    memory = int(rng.integers(10, 17))
    prompt = rng.integers(1, 6, n)
    output = rng.integers(1, memory - prompt + 1)
    arrival = np.zeros(n, np.int64) if at_once else np.sort(rng.integers(0, memory, n))
    return SlottedRequests(arrival, prompt, output, memory)


def in_order(requests: SlottedRequests, key: np.ndarray) -> int:
    """Total latency when every round starts waiting requests in order of `key` until one does not fit for good.

    With the output length as key this is the rule of MC-SF, arXiv 2502.07115, with known lengths.
    """
    starts, started, now = np.zeros(len(requests), np.int64), np.zeros(len(requests), bool), 0
    while not started.all():
        for i in sorted(np.flatnonzero(~started & (requests.arrival <= now)), key=lambda i: (key[i], i)):
            starts[i], started[i] = now, True
            running = SlottedRequests(*_rows(requests, started), requests.memory)
            if running.held(starts[started]).max() > requests.memory:
                started[i] = False
                break
        now += 1
    return requests.total_latency(starts)


def _rows(requests: SlottedRequests, mask: np.ndarray) -> tuple[np.ndarray, ...]:
    return requests.arrival[mask], requests.prompt[mask], requests.output[mask]


def main() -> None:
    """Print means and extremes over the instances."""
    parser = argparse.ArgumentParser(description="Bounds and simple rules against the hindsight optimum.")
    parser.add_argument("--requests", type=int, default=8, metavar="N", help="requests of an instance")
    parser.add_argument("--instances", type=int, default=50, metavar="N", help="half have all arrivals at 0")
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="S", help="for the solver, each")
    args = parser.parse_args()
    rng = np.random.default_rng(args.requests)
    ratios: dict[str, list[float]] = {"volume": [], "LP": [], "shortest first": [], "first come": []}
    seconds, proven = [], 0
    for k in range(args.instances):
        requests = instance(rng, args.requests, at_once=k % 2 == 0)
        begin = time.perf_counter()
        best = hindsight_optimum(requests, args.time_limit)
        seconds.append(time.perf_counter() - begin)
        if not best.optimal:
            continue
        proven += 1
        totals = {
            "volume": volume_bound(requests),
            "LP": lp_bound(requests),
            "shortest first": in_order(requests, requests.output),
            "first come": in_order(requests, requests.arrival),
        }
        for name, total in totals.items():
            ratios[name].append(total / best.total_latency)
    times = f"median {np.median(seconds):.2f}, mean {np.mean(seconds):.2f}, most {np.max(seconds):.2f}"
    print(f"{args.requests} requests: {proven} of {args.instances} proven, seconds: {times}")
    for name, values in ratios.items():
        print(f"  {name:15} mean {np.mean(values):.3f}, least {np.min(values):.3f}, most {np.max(values):.3f}")


if __name__ == "__main__":
    main()
