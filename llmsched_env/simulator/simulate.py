"""Run a scheduler on a workload, or a network of engines on tasks, and return the rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from llmsched_env.interrupts import workers
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.records import NetworkResult, Result
from llmsched_env.simulator.guard import check_bounds
from llmsched_env.simulator.loop import BOUNDARY, DRAINED, HORIZON, SELECT, STALLED
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.pools import Pools
from llmsched_env.simulator.ranges import warn_of_ranges
from llmsched_env.simulator.recording import entry_contexts
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Controller, Scheduler
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.tables.request_table import RequestSampler, RequestTable
from llmsched_env.tables.task_table import EngineTasks, TaskSampler, TaskTable
from llmsched_env.validation import check_choice, check_integer, check_number

RECORDS = ("requests", "batches", "entries")


def simulate(
    scheduler: Scheduler,
    workload: RequestSampler | EngineTasks,
    engine: EngineConfig,
    seed: int = 0,
    horizon: float | None = None,
    record: str = "batches",
    interpreted: bool = False,
    debug: bool = False,
) -> Result:
    """Run `scheduler` on one sample of `workload`.

    Args:
        scheduler: what composes the batches.
        workload: where requests come from, also users in a closed loop (`ClosedLoop`); its sample depends on `seed`
            alone, never on the scheduler.
        engine: the machine.
        seed: seed of the sample.
        horizon: the clock stops there (s): a batch running then is not applied, and rows hold arrivals up to it. None
            runs until every request has left.
        record: "requests", "batches" or "entries": how much to keep.
        interpreted: run as plain Python, for debugging; the rows are the same.
        debug: run twice, first with every index of compiled code checked, then in plain Python with a check after each
            decision that the scheduler wrote nothing that it may not; the rows are the same, and come a hundred times
            slower. Raises IndexError or ValueError, saying what is wrong.

    Warns:
        RuntimeWarning: if the run stalls (the result says since when).
        UserWarning: if batches were longer than the tables of a `TabulatedLaw` reach to, or requests longer than
            `max_model_len`.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    _check_run(scheduler, workload, engine, horizon, record)
    check_integer("seed", seed, at_least=0)
    result = replay(scheduler, workload.sample(seed), workload.name, engine, seed, horizon, record, interpreted, debug)
    result = replace(result, **_load(workload, engine))
    if result.stalled:
        warnings.warn(
            f"{scheduler.name} stalled at {result.stalled_since:g} s: requests are present and it composes no batch",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def replay(
    scheduler: Scheduler,
    table: RequestTable | TaskTable,
    name: str,
    engine: EngineConfig,
    seed: int,
    horizon: float | None,
    record: str,
    interpreted: bool = False,
    debug: bool = False,
) -> Result:
    """`simulate` on requests that have been drawn already, of a workload called `name`, for runs in great numbers.

    It checks no argument and leaves capacity and load out: to find them can take as long as the run.
    """
    if debug:
        more = (table, name, engine, seed, horizon, record)
        check_bounds((scheduler,), lambda checked: replay(checked[0], *more))
    if isinstance(table, TaskTable):
        return _replay_tasks(scheduler, table, name, engine, seed, horizon, record, interpreted, debug)
    simulator = Simulator(engine, scheduler, record=record, interpreted=interpreted, debug=debug)
    simulator.load(0, table, seed)
    until = math.inf if horizon is None else float(horizon)
    controller = None if scheduler.controller is None else scheduler.controller.fresh(engine)
    reason = simulator.advance(0, until) if controller is None else _run_controlled(simulator, controller, until)
    if reason == DRAINED and horizon is not None:
        simulator.clock_to(0, until)
    warn_of_ranges(simulator.world.engines, (engine,))
    return simulator.result(0, table, name, seed, reason)


def _only_engine(fleet: Any, i: int) -> int:
    return 0


_ONLY_ENGINE = Router("only_engine", _only_engine)


def _replay_tasks(
    scheduler: Scheduler,
    table: TaskTable,
    name: str,
    engine: EngineConfig,
    seed: int,
    horizon: float | None,
    record: str,
    interpreted: bool,
    debug: bool,
) -> Result:
    """`replay` of tasks: a network of one engine, with its rows in order of arrival."""
    simulator = NetworkSimulator((engine,), scheduler, _ONLY_ENGINE, record, interpreted=interpreted, debug=debug)
    simulator.load(table, seed)
    reason = simulator.run(math.inf if horizon is None else float(horizon))
    warn_of_ranges(simulator.world.engines, (engine,))
    rows = simulator.result(name, seed, reason)
    order = np.argsort(rows.requests.arrival, kind="stable")
    if rows.batch_entries is not None:
        rows.batch_entries.request = np.argsort(order)[rows.batch_entries.request]
    return Result(
        requests=rows.requests[order].view(np.recarray),
        batches=rows.batches,
        batch_entries=rows.batch_entries,
        token_gaps=rows.token_gaps,
        end=rows.end,
        stalled_since=float(simulator.world.engines[0].stalled_since) if rows.stalled else math.nan,
        scheduler=scheduler.name,
        workload=name,
        seed=seed,
        engine=engine,
        entry_contexts=entry_contexts(simulator.world),
        decision_time=scheduler.decision_time,
    )


def simulate_many(
    scheduler: Scheduler,
    workload: RequestSampler | EngineTasks,
    engine: EngineConfig,
    seeds: Iterable[int],
    horizon: float | None = None,
    record: str = "batches",
    progress: bool = True,
) -> list[Result]:
    """`simulate` for every seed, on all cores, with a progress bar; results are in the order of `seeds`."""
    from tqdm import tqdm

    seeds = [check_integer("seeds", seed, at_least=0) for seed in seeds]
    _check_run(scheduler, workload, engine, horizon, record)
    with workers() as pool:  # threads: compiled code releases the interpreter lock
        runs = [pool.submit(simulate, scheduler, workload, engine, seed, horizon, record) for seed in seeds]
        bar = tqdm(runs, desc=scheduler.name, disable=None if progress else True, leave=False)
        return [run.result() for run in bar]


def simulate_network(
    schedulers: Scheduler | Sequence[Scheduler],
    tasks: TaskSampler | TaskTable | RequestSampler,
    engines: Sequence[EngineConfig],
    router: Router,
    seed: int = 0,
    horizon: float | None = None,
    record: str = "batches",
    pools: Pools | None = None,
    interpreted: bool = False,
    debug: bool = False,
) -> NetworkResult:
    """Run a network of engines on one sample of tasks.

    Args:
        schedulers: one for all engines, or one for each.
        tasks: where tasks come from, or a table of them; the requests of a `Workload` are tasks of one call.
        engines: the machines.
        router: binds calls that are not pinned to an engine.
        seed: seed of the sample; it does not depend on schedulers or router.
        horizon: the clock stops there (s); None runs until every task has finished.
        record: "requests", "batches" or "entries": how much to keep.
        pools: engines that only prefill or only decode; None: all do both.
        interpreted: run as plain Python, for debugging; the rows are the same.
        debug: as for `simulate`; of the schedulers.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    if horizon is not None:
        check_number("horizon", horizon, above=0, unit="s")
    check_choice("record", record, RECORDS)
    check_integer("seed", seed, at_least=0)
    table = tasks if isinstance(tasks, TaskTable) else tasks.sample(seed)
    if not isinstance(table, TaskTable):
        table = TaskTable.from_columns(table)
    if debug:
        all_of_them = (schedulers,) * len(engines) if isinstance(schedulers, Scheduler) else tuple(schedulers)
        more = (table, engines, router, seed, horizon, record, pools)
        check_bounds(all_of_them, lambda checked: simulate_network(checked, *more))
    simulator = NetworkSimulator(engines, schedulers, router, record, pools, interpreted, debug)
    simulator.load(table, seed)
    reason = simulator.run(math.inf if horizon is None else float(horizon))
    result = simulator.result(getattr(tasks, "name", "tasks"), seed, reason)
    warn_of_ranges(simulator.world.engines, simulator.engines)
    return result


def _check_run(
    scheduler: Scheduler, workload: object, engine: EngineConfig, horizon: float | None, record: str
) -> None:
    if isinstance(workload, type) or not isinstance(workload, RequestSampler | EngineTasks):
        raise ValueError(f"workload must be a Workload, got {workload!r}")
    if not isinstance(scheduler, Scheduler):
        raise ValueError(f"scheduler must be a Scheduler, got {scheduler!r}")
    if not isinstance(engine, EngineConfig):
        raise ValueError(f"engine must be an EngineConfig, got {engine!r}")
    if horizon is not None:
        check_number("horizon", horizon, above=0, unit="s")
    check_choice("record", record, RECORDS)


def _run_controlled(simulator: Simulator, controller: Controller, until: float) -> int:
    """Advance to `until` with parameters set by `controller` before every batch, whenever asked, or at its ticks.

    A stalled engine may go on after a later tick; without a horizon to wait for, the run ends there.
    """
    if controller.interval is None:
        if not simulator.scheduler.asks:
            simulator.decide_every_batch(0)
        while (reason := simulator.advance(0, until)) in (BOUNDARY, SELECT):
            simulator.set_params(0, controller.decide(simulator.view(0)))
        return reason
    tick = 0
    while True:
        simulator.set_params(0, controller.decide(simulator.view(0)))
        tick += 1
        reason = simulator.advance(0, min(until, tick * controller.interval))
        waits = reason == HORIZON or (reason == STALLED and until < math.inf)
        if not waits or simulator.clock(0) >= until:
            return reason


def _load(workload: RequestSampler | EngineTasks, engine: EngineConfig) -> dict[str, Any]:
    """Reference capacity and the load on it, nan where the workload has no rate."""
    reference = workload.reference_capacity(engine)
    rate = workload.rate
    return {"capacity": reference, "load": rate / reference if np.isfinite(rate) else math.nan}
