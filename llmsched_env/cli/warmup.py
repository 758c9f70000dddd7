"""llmsched warmup: the machine code of the simulator and of all schedulers, compiled now and kept."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cyclopts import Parameter

from llmsched_env.cli.answers import Answer
from llmsched_env.cli.options import DEFAULT_ENGINE, PrintOptions

_SECONDS = 2.0  # of arrivals: enough for batches of both phases


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WarmupOptions(PrintOptions):
    """How the result is printed."""


_DEFAULTS = WarmupOptions()


def warmup(*, options: WarmupOptions = _DEFAULTS) -> Answer:
    """Run every scheduler, router and environment once, so that later runs load their machine code."""
    from tqdm import tqdm

    from llmsched_env.code_cache import cache_folder

    rows = []
    with tqdm(first_runs().items(), unit="run", dynamic_ncols=True, disable=None) as bar:
        for name, run in bar:
            bar.set_description(name)
            start = time.perf_counter()
            run()
            rows.append({"name": name, "seconds": time.perf_counter() - start})
    total = sum(float(str(row["seconds"])) for row in rows)
    folder = cache_folder()
    kept = "is not kept" if folder is None else f"is kept in {folder}"
    text = f"{len(rows)} first runs took {total:.1f} s. The machine code {kept}"
    return Answer(text, rows, {"seconds": total, "cache": None if folder is None else str(folder)})


def first_runs() -> dict[str, Callable[[], object]]:
    """A short run of every registered scheduler, pretrained policy, router and environment, by name."""
    import baselines
    from baselines.routers import ROUTERS
    from llmsched_env.envs import ENV_IDS
    from llmsched_env.machine.config import EngineConfig
    from llmsched_env.policies import pretrained
    from llmsched_env.simulator.simulate import simulate, simulate_network
    from llmsched_env.workloads import LengthPredictor, preset

    engine = EngineConfig.for_gpu(DEFAULT_ENGINE)
    workload = preset("azure-chat", horizon=_SECONDS).with_predictor(LengthPredictor(0.5))
    schedulers = {**baselines.REGISTRY, **{f"pretrained {name}": pretrained.load(name) for name in pretrained.NAMES}}
    routers = {**ROUTERS, "pretrained router": pretrained.router()}
    runs: dict[str, Callable[[], object]] = {
        name: partial(simulate, scheduler, workload, engine, horizon=_SECONDS) for name, scheduler in schedulers.items()
    }
    for name, router in routers.items():
        runs[name] = partial(simulate_network, baselines.sarathi, workload, [engine, engine], router, horizon=_SECONDS)
    return runs | {name: partial(_one_step, name) for name in ENV_IDS}


def _one_step(name: str) -> None:
    import gymnasium

    for env in (
        gymnasium.make(name),
        gymnasium.make_vec(name, num_envs=2, vectorization_mode="vector_entry_point"),
    ):
        env.reset(seed=0)
        env.step(env.action_space.sample())
        env.close()
