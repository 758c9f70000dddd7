"""A learned router against every registered one on fixed clusters and held-out seeds, with paired intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from tqdm import tqdm

from baselines.routers import ROUTERS
from llmsched_env.evaluation.benchmark.router_cases import LARGE, SMALL, Cluster, costs
from llmsched_env.evaluation.benchmark.tables import ReportTable
from llmsched_env.evaluation.cases import TEST_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.savings import saved
from llmsched_env.intervals import mean_interval
from llmsched_env.simulator.router import Router

TUNED: dict[str, dict[str, tuple[float, ...]]] = {
    "prefix_aware": {"more_calls": (0, 4, 16, 64), "times": (1.0, 1.1, 1.5), "least_match": (0.1, 0.3, 0.6)},
    "session_affinity": {"more_calls": (0, 4, 16, 64), "times": (1.0, 1.1, 1.5)},
    "least_outstanding_seconds": {
        "output_weight": (0, 1), "own_decode": (0.3, 1, 3, 10), "held_up": (0, 0.3, 1, 3),
    },
}  # fmt: skip
"""Parameters of routers to search: for each cluster the best values are found on tuning seeds."""
TUNING_RUNS = 3


def _cluster(name: str, workload: str, engines: Mapping[str, int], load: float, large: bool = False) -> Cluster:
    profiles = tuple((LARGE if large else SMALL)[gpu] for gpu, count in engines.items() for _ in range(count))
    return Cluster(name, workload, profiles, load, calls=600.0 if name.startswith("sessions") else 2000.0, least=60.0)


H100, H200, A100, L40S = "h100-80gb", "h200-141gb", "a100-80gb", "l40s-48gb"
RTX4090, RTXPRO = "rtx4090-24gb", "rtxpro6000-96gb"
EQUAL = (
    _cluster("chat, 4 H100", "azure-chat", {H100: 4}, 0.95),
    _cluster("bursty, 4 RTX 4090", "bursty-api", {RTX4090: 4}, 0.9),
    _cluster("tools, 4 H100", "mooncake-tool-agent", {H100: 4}, 0.95),
    _cluster("sessions, 4 H100", "swe-agent", {H100: 4}, 0.9),
    _cluster("code, 4 H100", "azure-code", {H100: 4}, 0.9),
    _cluster("tenants, 4 H100", "multi-tenant", {H100: 4}, 0.95),
    _cluster("reasoning, 4 H100", "reasoning-r1", {H100: 4}, 0.9),
)
MIXED = (
    _cluster("chat, 2 H100 + 2 L40S", "azure-chat", {H100: 2, L40S: 2}, 0.9),
    _cluster("chat, H200 + H100 + A100 + RTX PRO", "sharegpt-chat", {H200: 1, H100: 1, A100: 1, RTXPRO: 1}, 0.9),
    _cluster("chat of a 32B model, 2 H100 + 2 A100", "azure-chat", {H100: 2, A100: 2}, 0.9, large=True),
    _cluster("bursty, H100 + 2 RTX 4090", "bursty-api", {H100: 1, RTX4090: 2}, 0.9),
    _cluster("sessions, 2 H200 + 2 A100", "swe-agent", {H200: 2, A100: 2}, 0.8),
    _cluster("code, H100 + A100 + L40S", "azure-code", {H100: 1, A100: 1, L40S: 1}, 0.9),
    _cluster("tenants, H200 + 2 A100 + L40S", "multi-tenant", {H200: 1, A100: 2, L40S: 1}, 0.9),
)  # fmt: skip
CLUSTERS = (*EQUAL, *MIXED)
_HELD_OUT = ("azure-code", "multi-tenant", "reasoning-r1")
GROUPS: dict[str, tuple[Cluster, ...]] = {
    "all": CLUSTERS,
    "equal": EQUAL,
    "mixed": MIXED,
    "new": tuple(cluster for cluster in CLUSTERS if cluster.workload in _HELD_OUT),
}
"""By name of a column: all clusters, those of equal and of different GPUs, and those of workloads never trained on."""


@dataclass(frozen=True, slots=True)
class RouterComparison:
    """Costs of routers, the learned one first: f8[routers, clusters, seeds], and their names."""

    names: tuple[str, ...]
    clusters: tuple[Cluster, ...]
    costs: np.ndarray

    def saved_by_first(self, name: str, clusters: Collection[Cluster]) -> tuple[float, float]:
        """Share of another router's mean latency that the first saves, over these clusters: with its half width.

        Logarithms of ratios on the same calls, averaged over clusters for each seed; the 95 % t-interval is over seeds.
        """
        places = [k for k, cluster in enumerate(self.clusters) if cluster in clusters]
        gains = saved(self.costs[0], self.costs[self.names.index(name)])[places].mean(axis=0)
        mean, half = mean_interval(gains)
        return 1 - float(np.exp(-mean)), float(np.exp(-mean) * half)

    def best_other(self, cluster: Cluster) -> str:
        """The other router with the least mean latency there. It is chosen after the fact, in its favour."""
        means = self.costs[1:, self.clusters.index(cluster)].mean(axis=-1)
        return self.names[1 + int(np.argmin(means))]


def compare(
    router: Router, seeds: int = 10, clusters: Sequence[Cluster] = CLUSTERS, progress: bool = False
) -> RouterComparison:
    """Every router on test seeds of each cluster; those of `TUNED` with default and with tuned parameters.

    Raises:
        ValueError: if `seeds` is no number of test seeds.
    """
    tested = seed_range(TEST_SEEDS, seeds)
    names = (router.name, *ROUTERS, *(f"{name}, tuned" for name in TUNED))
    values = []
    with tqdm(clusters, unit="clusters", dynamic_ncols=True, disable=None if progress else True) as bar:
        for cluster in bar:
            bar.set_description(cluster.name)
            tuned = [tune(name, cluster) for name in TUNED]
            routers = [router, *ROUTERS.values(), *tuned]
            values.append(costs(routers, [(cluster, seed) for seed in tested]))
    return RouterComparison(names, tuple(clusters), np.stack(values, axis=1))


def tune(name: str, cluster: Cluster) -> Router:
    """The registered router with the parameters of `TUNED` that are best for a cluster, on tuning seeds."""
    options = settings_of(name)
    found = costs(options, [(cluster, seed) for seed in seed_range(TUNING_SEEDS, TUNING_RUNS)])
    return options[int(np.argmin(found.mean(axis=1)))]


def settings_of(name: str) -> list[Router]:
    """A router of `TUNED` with each of the settings to search."""
    grid = TUNED[name]
    return [ROUTERS[name](**dict(zip(grid, values, strict=True))) for values in product(*grid.values())]


def report_tables(comparison: RouterComparison) -> tuple[ReportTable, ReportTable]:
    """By router, what the first saves over it; and by cluster, against the best other."""
    first = comparison.names[0]
    groups = {name: own for name, own in GROUPS.items() if set(own) & set(comparison.clusters)}
    rows = []
    for name in comparison.names[1:]:
        shares = [_percent(*comparison.saved_by_first(name, own)) for own in groups.values()]
        rows.append((_code(name), *shares))
    of_clusters = []
    for k, cluster in enumerate(comparison.clusters):
        best = comparison.best_other(cluster)
        own, other = (comparison.costs[comparison.names.index(name), k].mean() for name in (first, best))
        share = _percent(*comparison.saved_by_first(best, (cluster,)))
        of_clusters.append((cluster.name, f"{cluster.load:g}", f"{own:.2f}", _code(best), f"{other:.2f}", share))
    header = (f"{first} saves over", *(f"{name}, %" for name in groups))
    caption = "Mean latency saved on the same requests, with its 95 % interval, over clusters: "
    caption += "all, of equal GPUs, of different ones, and of workloads that were never trained on."
    columns = ("cluster", "load", "its latency, s", "best other", "of latency, s", "saved, %")
    return (
        ReportTable("Routers", caption, header, tuple(rows)),
        ReportTable(
            "Routers by cluster", "The best other is chosen after the fact.", columns, tuple(of_clusters), (0, 3)
        ),
    )


def tables(comparison: RouterComparison) -> str:
    """Both tables in Markdown."""
    return "\n".join(table.markdown() for table in report_tables(comparison))


def _percent(share: float, half: float) -> str:
    return f"{100 * share:.1f} ± {100 * half:.1f}"


def _code(name: str) -> str:
    plain, *rest = name.split(", ")
    return ", ".join([f"`{plain}`", *rest])
