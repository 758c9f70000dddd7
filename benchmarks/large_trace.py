"""Load a synthetic trace of ten million rows and simulate it under Sarathi-Serve: in what time and memory.

The trace is a CSV in Azure's format or the plain one: Poisson arrivals at a load of 0.7 on an H100 with Llama 3.1 8B.
All rows of a run's result do not fit into 2 GiB, so the trace is simulated in windows of time: each run begins and ends
some minutes outside its window, so that the engine is as busy at the window's edges as it would be, and only requests
that arrive within the window count.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import baselines
import llmsched_env as ls

LOAD, MARGIN = 0.7, 300.0  # of the capacity; s before and after each window
BLOCK = 100_000  # rows written at once
ENGINE = ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic")
SCHEDULER = baselines.sarathi(token_budget=512)
HEADERS = {"azure": "TIMESTAMP,ContextTokens,GeneratedTokens", "plain": "arrival,prompt_tokens,output_tokens"}
LAWS = (ls.dist.Uniform(1, 1200), ls.dist.Uniform(1, 240))  # of prompt and output tokens


def main() -> None:
    """Print one line for loading and one for simulating."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--window", type=int, default=400_000, help="requests per window of the simulation")
    parser.add_argument("--format", choices=tuple(HEADERS), default="azure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{arguments.format}.csv"
        write(path, arguments.format, arguments.rows)
        megabytes = path.stat().st_size / 1e6
        start = time.perf_counter()
        workload = ls.load_trace(path)
        seconds = time.perf_counter() - start
    print(
        f"load: {arguments.rows / seconds:,.0f} rows/s ({seconds:.2f} s for {arguments.rows:,} rows, "
        f"{megabytes:,.0f} MB of {arguments.format} CSV), peak memory {peak_mib():,.0f} MiB"
    )
    start = time.perf_counter()
    requests, ttft = simulate_in_windows(workload, arguments.window)
    seconds = time.perf_counter() - start
    print(
        f"simulate: {requests / seconds:,.0f} requests/s ({seconds:.1f} s for {requests:,} requests, mean TTFT "
        f"{1e3 * ttft:.1f} ms), peak memory {peak_mib():,.0f} MiB"
    )


def write(path: Path, kind: str, rows: int) -> None:
    """Write the trace in blocks."""
    rate = ls.Workload.poisson(1.0, *LAWS, horizon=1.0).at_load(LOAD, ENGINE).rate
    rng, clock = np.random.default_rng(0), 0.0
    with path.open("w") as file:
        file.write(HEADERS[kind] + "\n")
        for first in range(0, rows, BLOCK):
            n = min(BLOCK, rows - first)
            times = clock + np.cumsum(rng.exponential(1 / rate, n))
            clock = float(times[-1])
            lengths = (law.sample(rng, n).tolist() for law in LAWS)
            stamps = azure_stamps(times) if kind == "azure" else map(repr, times.tolist())
            file.writelines(f"{t},{prompt},{output}\n" for t, prompt, output in zip(stamps, *lengths, strict=True))


def azure_stamps(times: np.ndarray) -> list[str]:
    """Seconds as time stamps with seven decimals."""
    stamps = np.datetime64("2023-11-16T18:15:46") + (times * 1e9).astype("timedelta64[ns]")
    return [text.replace("T", " ")[:-2] for text in np.datetime_as_string(stamps, unit="ns").tolist()]


def simulate_in_windows(workload: ls.Workload, size: int) -> tuple[int, float]:
    """Simulate `size` requests at a time; returns requests and their mean TTFT in seconds."""
    finished, total = 0, 0.0
    for part, begin, end in windows(workload, size):
        rows = ls.simulate(SCHEDULER, part, ENGINE, record="requests").requests
        inside = (rows.arrival >= begin) & (rows.arrival < end)
        finished += int(np.count_nonzero(inside))
        total += float(np.sum(rows.first_token[inside] - rows.arrival[inside]))
    return finished, total / finished


def windows(workload: ls.Workload, size: int) -> Iterator[tuple[ls.Workload, float, float]]:
    """Parts of the trace with margins, and begin and end (s, in the part's own time) of the window within each."""
    table = workload.sample(0)
    for first in range(0, len(table), size):
        begin = float(table.arrival[first])
        end = (
            float(table.arrival[first + size])
            if first + size < len(table)
            else float(np.nextafter(table.arrival[-1], np.inf))
        )
        start = max(0.0, begin - MARGIN)
        part = table.window(start, end + MARGIN, end + MARGIN - start)
        yield ls.Workload.from_table(part, workload.name), begin - start, end - start


def peak_mib() -> float:
    """Most memory that this process has held, MiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10


if __name__ == "__main__":
    main()
