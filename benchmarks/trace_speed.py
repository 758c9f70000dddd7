"""Time of `simulate` with Sarathi-Serve (budget 512) on a trace, on an H100 with Llama 3.1 8B, once compiled.

Without a trace, 10 000 requests shaped like the Azure conversation trace are drawn.
"""

import argparse
import math
import time

import baselines
import llmsched_env as ls

ROUNDS = 5


def main() -> None:
    """Print one line: seconds for the whole trace, best of several rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", nargs="?", help="CSV file, as for llmsched_env.load_trace")
    path = parser.parse_args().trace
    try:
        workload = azure_chat(10_000) if path is None else ls.load_trace(path)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    engine = ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic")
    scheduler = baselines.sarathi(token_budget=512)
    ls.simulate(scheduler, workload, engine, horizon=1e-9)  # compiles
    best = math.inf
    for _ in range(ROUNDS):
        start = time.perf_counter()
        result = ls.simulate(scheduler, workload, engine)
        best = min(best, time.perf_counter() - start)
    print(
        f"trace: {best:.3f} s for {len(result.requests):,} requests, {len(result.batches):,} batches and "
        f"{result.end:,.0f} simulated s of {workload.name}"
    )


def azure_chat(requests: int) -> ls.Workload:
    """Exactly that many requests of the preset, fixed."""
    native = ls.preset("azure-chat")
    table = ls.preset("azure-chat", horizon=1.5 * requests / native.rate).sample(seed=0)
    end = float(table.arrival[requests])
    return ls.Workload.from_table(table.window(0.0, end, end), native.name)


if __name__ == "__main__":
    main()
