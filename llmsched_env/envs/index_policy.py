"""`llmsched/IndexPolicy-v0`: an agent sets the numbers of the index policy of one engine, single and vectorised."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from gymnasium.spaces import Box

from llmsched_env.envs.actions import actions_or_arms
from llmsched_env.envs.construction import SingleArguments, VectorArguments, built_from, documented
from llmsched_env.envs.engine_runner import EngineArguments, EngineEnv, EngineVectorEnv, SharedTraces
from llmsched_env.envs.features import ENGINE_FEATURES, ENGINE_OBSERVATION, NUM_FEATURES
from llmsched_env.envs.steering import Steering
from llmsched_env.policies.index import index
from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.simulator.scheduler import Linear, Log, Param
from llmsched_env.validation import check_choice, check_number


class IndexNumbers:
    """Maps [-1, 1] for each number of the index policy to the range in which a tuner searches it.

    Numbers with a `Log` range are mapped evenly in their logarithm, those of a tuple to the nearest place in it. The
    other parameters of the scheduler, its limits, keep their defaults. `encode()` is the action of the defaults, and
    gives exactly these.
    """

    scheduler = index

    def __init__(self) -> None:
        params = {name: param for name, param in INDEX_PARAMS.items() if param.tune is not None}
        self.names = tuple(params)
        self.space = Box(-1.0, 1.0, (len(self.names),), np.float32)
        self._columns = [list(index.params).index(name) for name in self.names]
        self._defaults = index.param_values()
        self._start = self.encode()
        tunes = [_tuned(param) for param in params.values()]
        self._low, self._high = np.array([_range(param) for param in params.values()], float).T
        self._is_log = np.array([isinstance(tune, Log) for tune in tunes])
        self._is_whole = np.array([not isinstance(tune, tuple) and tune.whole for tune in tunes])
        self._ratio = np.ones(len(tunes))
        self._ratio[self._is_log] = self._high[self._is_log] / self._low[self._is_log]
        self._choices = [(k, np.array(tune, float)) for k, tune in enumerate(tunes) if isinstance(tune, tuple)]

    def __repr__(self) -> str:
        return f"IndexNumbers({', '.join(self.names)})"

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., p]: the parameters of `index` that actions (f4[..., numbers], clipped to [-1, 1]) set."""
        actions = np.clip(actions, -1.0, 1.0).astype(np.float64)
        share, low, high = 0.5 * (1.0 + actions), self._low, self._high
        values = np.where(self._is_log, low * self._ratio**share, low + (high - low) * share)
        values = np.clip(np.where(self._is_whole, np.rint(values), values), low, high)
        for k, choices in self._choices:
            values[..., k] = choices[np.rint(share[..., k] * (len(choices) - 1)).astype(np.int64)]
        params = np.empty((*actions.shape[:-1], len(self._defaults)))
        params[...] = self._defaults
        params[..., self._columns] = np.where(actions == self._start, self._defaults[self._columns], values)
        return params

    def values(self, action: np.ndarray) -> Mapping[str, float]:
        """The numbers that an action sets, by name: `index(**values)` is the scheduler with them."""
        params = self.params(np.asarray(action))
        return {name: float(params[column]) for name, column in zip(self.names, self._columns, strict=True)}

    def encode(self, **values: float) -> np.ndarray:
        """f4[numbers]: the action that sets these numbers (up to its precision), and the others to their defaults.

        A default beyond the range in which a tuner searches is the action at its end.

        Raises:
            ValueError: for an unknown name, or a value that no action sets.
        """
        action = np.empty(len(self.names), np.float32)
        for name in values:
            check_choice("number of the index policy", name, self.names)
        for k, name in enumerate(self.names):
            param = INDEX_PARAMS[name]
            if name in values:
                low, high = _range(param)
                check_number(name, values[name], at_least=low, at_most=high, unit=param.unit)
            action[k] = np.clip(2.0 * _share(param, values.get(name, param.default)) - 1.0, -1.0, 1.0)
        return action


def _tuned(param: Param) -> Log | Linear | tuple[float, ...]:
    """What a tuner tries for it."""
    assert param.tune is not None, "the numbers are those that are tuned"
    return param.tune


def _range(param: Param) -> tuple[float, float]:
    tune = _tuned(param)
    return (min(tune), max(tune)) if isinstance(tune, tuple) else (tune.low, tune.high)


def _share(param: Param, value: float) -> float:
    """Where in the range a value stands."""
    tune = _tuned(param)
    if isinstance(tune, tuple):
        place = int(np.argmin(np.abs(np.array(tune, float) - value)))
        return place / max(1, len(tune) - 1)
    if isinstance(tune, Log):
        return float(np.log(max(value, tune.low) / tune.low) / np.log(tune.high / tune.low))
    return (value - tune.low) / (tune.high - tune.low)


@dataclass(frozen=True)
class IndexPolicyArguments(EngineArguments):
    """Arguments of both classes; see `IndexPolicyEnv`."""

    _: KW_ONLY
    decision_interval: float | None = None
    arms: Sequence[Sequence[float]] | None = None

    def steering(self) -> Steering:
        """What an agent sees and sets."""
        return Steering(actions_or_arms(IndexNumbers(), self.arms), ENGINE_OBSERVATION, self.decision_interval)


@dataclass(frozen=True)
class _IndexPolicy(SingleArguments, IndexPolicyArguments):
    pass


@dataclass(frozen=True)
class _IndexPolicyVector(IndexPolicyArguments, SharedTraces, VectorArguments):
    pass


@documented(features=ENGINE_FEATURES, num_features=NUM_FEATURES)
class IndexPolicyEnv(EngineEnv):
    """One LLM inference engine under the index policy, whose numbers the agent sets.

    ## Description
    The scheduler `llmsched_env.policies.index.index` orders the waiting requests by an index over their features and
    bounds the length of the step. The agent sets its numbers: the weights of the index, the shares of the targets that
    a step may last, the limits of the chunks and the KV memory left free. The simulator is that of `simulate`, and a
    constant action gives the same rows as `simulate(index(**unwrapped.numbers.values(action)), ...)`.

    ## Action Space
    `Box(-1, 1, (n,), float32)`, an entry for each of `unwrapped.numbers.names` (`INDEX_PARAMS`). -1 and 1 are the ends
    of the range in which a tuner searches that number; the scale between them is linear or logarithmic, as the tuner's.
    `unwrapped.numbers.encode()` is the action of the defaults, `encode(by_length=1.5)` changes one of them.

    ## Observation Space
    `Box(0, 1, ({num_features},), float32)`. A feature x with a scale is log(1 + x)/log(1 + scale), clipped to [0, 1].
    Predicted output lengths reach the index where the workload has them; they are not observed.

    | Num | Feature | Meaning | Scale |
    |-----|---------|---------|-------|
    {features}

    ## Rewards, Starting State, Episode End
    As in `llmsched/BatchQueue-v0`.

    ## Arguments
    `workload`, `engine`, `load`, `horizon`, `decision_interval`, `reward`, `slo`, `record`, `render_mode`, `reference`
    and (vectorised) `shared_traces` as in `llmsched/BatchQueue-v0`; `arms`: actions among which a `Discrete` action
    chooses, instead of the `Box`.

    ## Version History
    * v0: first version.
    """

    @built_from(_IndexPolicy)
    def __init__(self, given: _IndexPolicy) -> None:
        self.numbers = IndexNumbers()
        super().__init__(given.runner(record=given.record), given.render_mode)


class IndexPolicyVectorEnv(EngineVectorEnv):
    """`num_envs` independent engines stepped together; see `IndexPolicyEnv`, and `RunnerVectorEnv` for infos."""

    @built_from(_IndexPolicyVector)
    def __init__(self, given: _IndexPolicyVector) -> None:
        self.numbers = IndexNumbers()
        super().__init__(given.runner(given.num_envs), given.shared_traces)
