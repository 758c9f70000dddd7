"""All experiments, in the order of the report."""

from __future__ import annotations

from experiments import (
    batch_times,
    dong_cao,
    fig1,
    fig8,
    rybko_stolyar,
    stability_region,
    theorem2,
    theorem10,
)
from experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (fig8, theorem2, fig1, batch_times, theorem10, stability_region, rybko_stolyar, dong_cao)
}
