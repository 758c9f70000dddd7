"""The pretrained router against every registered one, for the benchmark: kept costs, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from llmsched_env.evaluation.benchmark import router_cases, routers
from llmsched_env.evaluation.benchmark.router_cases import Cluster
from llmsched_env.evaluation.benchmark.routers import CLUSTERS, RouterComparison, compare, report_tables
from llmsched_env.evaluation.benchmark.sections import ReportSection
from llmsched_env.evaluation.run_cache import digest_of, source_of
from llmsched_env.files import read_object_if_exists, write_json
from llmsched_env.simulator.router import Router


def run_routers(
    router: Router, seeds: int, path: Path, clusters: Sequence[Cluster] = CLUSTERS, progress: bool = True
) -> RouterComparison:
    """`routers.compare`, with every finished cluster kept in a file; those that it holds are not run again.

    Args:
        router: the learned one.
        seeds: test seeds of each cluster.
        path: the file, written after each cluster.
        clusters: where they are compared.
        progress: whether to show it.
    """
    old = read_object_if_exists(path).get("kept", {})
    keys = {cluster.name: _key(router, seeds, cluster) for cluster in clusters}
    kept = {name: old[name] for name, key in keys.items() if old.get(name, {}).get("key") == key}
    with tqdm(clusters, unit="cluster", dynamic_ncols=True, disable=None if progress else True) as bar:
        for cluster in bar:
            bar.set_description(f"routers, {cluster.name}")
            if cluster.name not in kept:
                found = compare(router, seeds, [cluster])
                costs = dict(zip(found.names, found.costs[:, 0].tolist(), strict=True))
                kept[cluster.name] = {"key": keys[cluster.name], "costs": costs}
            write_json(path, {"clusters": list(keys), "kept": kept})
    return _comparison(kept, clusters)


def router_sections(path: Path, clusters: Sequence[Cluster] = CLUSTERS) -> list[ReportSection]:
    """The section of the report; none if `run_routers` has not run to its end."""
    record = read_object_if_exists(path)
    names = record.get("clusters", [])
    if not names or any(name not in record["kept"] for name in names):
        return []
    comparison = _comparison(record["kept"], [cluster for cluster in clusters if cluster.name in names])
    return [ReportSection("routers", "Routers", report_tables(comparison), ())]


def _comparison(kept: dict[str, dict[str, dict[str, list[float]]]], clusters: Sequence[Cluster]) -> RouterComparison:
    costs = [kept[cluster.name]["costs"] for cluster in clusters]
    values = [[own[name] for own in costs] for name in costs[0]]
    return RouterComparison(tuple(costs[0]), tuple(clusters), np.array(values))


def _key(router: Router, seeds: int, cluster: Cluster) -> str:
    code = (source_of(routers), source_of(router_cases))
    return digest_of(router.name, router.weights, dict(router.values), seeds, cluster, code)
