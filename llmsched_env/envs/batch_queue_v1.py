"""`llmsched/BatchQueue-v1`: an agent sets how a queue is ordered and how long steps last, single and vectorised.

The scheduler is the index policy (`llmsched_env.policies.index`). Of its numbers an agent sets a dozen that a user of a
serving engine has words for; the others stay where they do nothing. In the middle of all ranges stands a plain rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from gymnasium.spaces import Box

from llmsched_env.envs.actions import Actions, actions_or_arms
from llmsched_env.envs.batch_queue import Knobs
from llmsched_env.envs.construction import SingleArguments, VectorArguments, built_from, documented
from llmsched_env.envs.engine_runner import EngineArguments, EngineEnv, EngineVectorEnv, SharedTraces
from llmsched_env.envs.outlook import AHEAD_FEATURES, AHEAD_OBSERVATION, NUM_AHEAD_FEATURES
from llmsched_env.envs.rewards import ENGINE_REWARDS
from llmsched_env.envs.steering import Steering
from llmsched_env.policies.index import index
from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.validation import check_choice, check_number


@dataclass(frozen=True, slots=True)
class Range:
    """What an action in [-1, 1] sets a number to: -1 the low end, 0 the neutral value, 1 the high end.

    In between it is linear, or even in the logarithm.
    """

    low: float
    neutral: float
    high: float
    log: bool = False

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """f8[...]: the values that actions (f8[...], clipped to [-1, 1]) set."""
        ends = np.array([self.low, self.neutral, self.high])
        values = np.interp(actions, (-1, 0, 1), np.log(ends) if self.log else ends)
        return np.asarray(np.exp(values) if self.log else values)

    def inverse(self, value: float) -> float:
        """The action that sets `value`; of several, the one nearest to 0."""
        ends = np.array([self.low, self.neutral, self.high])
        if self.log:
            value, ends = float(np.log(value)), np.log(ends)
        if value == ends[1]:
            return 0.0
        return float(np.interp(value, ends, (-1, 0, 1)))


RANGES = {
    "by_length": Range(-2, 0, 2),
    "by_slack": Range(-4, 0, 8),
    "by_age": Range(-1, 0, 1),
    "by_prediction": Range(-2, 0, 2),
    "by_memory": Range(-2, 0, 2),
    "late": Range(-10, 0, 20),
    "outside": Range(-10, 0, 20),
    "step_share": Range(0.3, 0.9, 3, log=True),
    "spend": Range(0, 0, 1),
    "join": Range(0.3, 30, 1000, log=True),
    "spare": Range(0, 0, 0.8),
    "keep": Range(0, 0, 0.5),
}
"""The numbers of the index policy that an agent sets. With all of them neutral requests are served first come first
served, in steps of 0.9 times the longest that keeps the TPOT targets of decoding requests."""
_SHED, _STAYS_SHED = "outside", "decline"  # the second, for prompts that were outside once, follows the first
PAUSING = {"begun": Range(-2, 2, 6)}
"""With `pausing` also by how much requests whose prefill has begun go before others; without, they always do."""


class QueueNumbers:
    """Maps [-1, 1] for each of `RANGES` to numbers of the index policy; 0 is neutral.

    Args:
        pausing: whether prompts that have begun may wait for others.

    Attributes:
        scheduler: the index policy.
        names: of the numbers.
        space: `Box(-1, 1, (len(names),), float32)`.
        neutral: f4[numbers], the action of the plain rule.
    """

    scheduler = index

    def __init__(self, pausing: bool = False) -> None:
        self.ranges = RANGES | (PAUSING if pausing else {})
        self.names = tuple(self.ranges)
        self.space = Box(-1.0, 1.0, (len(self.names),), np.float32)
        self.neutral = np.zeros(len(self.names), np.float32)
        columns = list(index.params)
        self._columns = [columns.index(name) for name in self.names]
        self._shed, self._stays_shed = columns.index(_SHED), columns.index(_STAYS_SHED)
        self._fixed = index.param_values()

    def __repr__(self) -> str:
        return f"QueueNumbers({', '.join(self.names)})"

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., p]: the parameters of `index` that actions (f4[..., numbers], clipped to [-1, 1]) set."""
        actions = np.clip(actions, -1.0, 1.0).astype(np.float64)
        params = np.empty((*actions.shape[:-1], len(self._fixed)))
        params[...] = self._fixed
        for k, (column, mapping) in enumerate(zip(self._columns, self.ranges.values(), strict=True)):
            params[..., column] = mapping(actions[..., k])
        params[..., self._stays_shed] = np.maximum(0.0, params[..., self._shed])
        return params

    def values(self, action: np.ndarray) -> Mapping[str, float]:
        """What an action sets, by name of a parameter: `index(**values)` is the scheduler with it."""
        params = self.params(np.asarray(action))
        return {name: float(params[list(index.params).index(name)]) for name in (*self.names, _STAYS_SHED)}

    def encode(self, **values: float) -> np.ndarray:
        """f4[numbers]: the action that sets these numbers, and leaves the others neutral.

        Raises:
            ValueError: for an unknown name, or a value that no action sets.
        """
        action = self.neutral.copy()
        values.pop(_STAYS_SHED, None)  # of `values`; it follows
        for name, value in values.items():
            check_choice("number", name, self.names)
            mapping = self.ranges[name]
            check_number(name, value, at_least=mapping.low, at_most=mapping.high, unit=INDEX_PARAMS[name].unit)
            action[self.names.index(name)] = mapping.inverse(value)
        return action


ACTIONS = ("index", "knobs")


@dataclass(frozen=True)
class BatchQueueV1Arguments(EngineArguments):
    """Arguments of both classes; see `BatchQueueV1Env`."""

    _: KW_ONLY
    reward: str = "slo"
    decision_interval: float | None = 0.5
    actions: str = "index"
    pausing: bool = False
    arms: Sequence[Sequence[float]] | None = None

    def numbers(self) -> QueueNumbers | Knobs:
        """What an action sets."""
        if check_choice("actions", self.actions, ACTIONS) == "index":
            return QueueNumbers(self.pausing)
        if self.pausing:
            raise ValueError("pausing must be False with actions='knobs', got True: no knob pauses a prompt")
        return Knobs()

    def steering(self) -> Steering:
        """What an agent sees and sets."""
        numbers: Actions = self.numbers()
        return Steering(actions_or_arms(numbers, self.arms), AHEAD_OBSERVATION, self.decision_interval)


@dataclass(frozen=True)
class _BatchQueueV1(SingleArguments, BatchQueueV1Arguments):
    pass


@dataclass(frozen=True)
class _BatchQueueV1Vector(BatchQueueV1Arguments, SharedTraces, VectorArguments):
    pass


@documented(features=AHEAD_FEATURES, rewards=ENGINE_REWARDS, num_features=NUM_AHEAD_FEATURES)
class BatchQueueV1Env(EngineEnv):
    """One LLM inference engine: the agent sets how its queue is ordered and how much prefill goes beside decodes.

    ## Description
    Requests arrive at an engine, wait, are prefilled in chunks and decode one token a batch. All decodes are in every
    batch; prompts join in the order of an index, least first, while the step stays within its bound. The agent sets
    the weights of the index and the bounds. The simulator is that of `simulate`, and a constant action gives the same
    rows as `simulate(index(**unwrapped.numbers.values(action)), ...)` (`llmsched_env.policies.index`).

    ## Action Space
    `Box(-1, 1, (12,), float32)`. 0 is the neutral value of each number, -1 and 1 are the ends of its range; the scale
    on either side of 0 is linear, for `step_share` and `join` logarithmic.

    | Num | Number          | Range        | Neutral | Meaning                                                         |
    |-----|-----------------|--------------|---------|-----------------------------------------------------------------|
    | 0   | `by_length`     | -2 to 2      | 0       | index, for each e-fold of prompt tokens left                    |
    | 1   | `by_slack`      | -4 to 8      | 0       | index, for the time left to the TTFT deadline over the target   |
    | 2   | `by_age`        | -1 to 1      | 0       | index, for each e-fold of waiting time                          |
    | 3   | `by_prediction` | -2 to 2      | 0       | index, for each e-fold of predicted output tokens               |
    | 4   | `by_memory`     | -2 to 2      | 0       | index, for each e-fold of KV tokens at the predicted end        |
    | 5   | `late`          | -10 to 20    | 0       | index, where the TTFT target cannot be met any more             |
    | 6   | `outside`       | -10 to 20    | 0       | index, outside the largest set of prompts that can be on time   |
    | 7   | `step_share`    | 0.3 to 3     | 0.9     | longest step with prefill, over the longest that keeps TPOT     |
    | 8   | `spend`         | 0 to 1       | 0       | or the share of what decodes can bear until their ends          |
    | 9   | `join`          | 0.3 to 1000  | 30      | prefill after which no prompt joins, over the shortest step     |
    | 10  | `spare`         | 0 to 0.8     | 0       | KV blocks that admitting late requests must leave free (share)  |
    | 11  | `keep`          | 0 to 0.5     | 0       | KV blocks that admitting any request must leave free (share)    |
    | (12)| `begun`         | -2 to 6      | 2       | only with `pausing`: index, less this where prefill has begun   |

    With all of them neutral requests are served first come first served, in steps of 0.9 times the longest that keeps
    the TPOT targets of decoding requests. Without `pausing` prompts that have begun go first, as in vLLM.
    `unwrapped.numbers.encode(by_length=1)` is the action of shortest prompt first. With `actions="knobs"` the actions
    are the four knobs of `llmsched/BatchQueue-v0`. With `arms`, a list of actions, the space is `Discrete(len(arms))`.

    ## Observation Space
    `Box(0, 1, ({num_features},), float32)`. A feature x with a scale is log(1 + x)/log(1 + scale), clipped to [0, 1].
    Output lengths are predicted ones, times those of the law that schedulers believe: what a deployed scheduler has.

    | Num | Feature | Meaning | Scale |
    |-----|---------|---------|-------|
    {features}

    ## Rewards
    The argument `reward` names one; all are in `info`, as `reward_<name>`. Each is that of the step alone.

    | Name | Meaning | Unit |
    |------|---------|------|
    {rewards}

    The default, `slo`, pays when the fate of a request is decided: as soon as its first token is late, its TPOT target
    is out of reach even for its true length (which the agent does not see), or it is rejected or abandoned. Its sum
    over an episode that drains is minus the requests that missed. Those that are undecided when an episode is truncated
    count 0; `info["episode_undecided"]` says how many they are, `info["episode_missed"]` how many have missed.

    ## Starting State, Episode End
    As in `llmsched/BatchQueue-v0`.

    ## Arguments
    `workload`, `engine`, `load`, `horizon`, `slo`, `reference`, `record`, `render_mode` and (vectorised)
    `shared_traces` as in `llmsched/BatchQueue-v0`, and:

    | Name                | Default   | Meaning                                                                  |
    |---------------------|-----------|--------------------------------------------------------------------------|
    | `reward`            | `"slo"`   | name of a reward of the table above                                      |
    | `decision_interval` | `0.5`     | s between decisions; `None`: before every batch                          |
    | `actions`           | `"index"` | what actions set: the numbers above, or `"knobs"`                        |
    | `pausing`           | `False`   | whether prompts whose prefill has begun may wait for others              |
    | `arms`              | `None`    | actions among which a `Discrete` action chooses, instead                 |

    ## Version History
    * v1: continuous actions over the order of the queue and the length of steps; predictions in the observation;
      rewarded when the fate of a request is decided.
    * v0: `llmsched/BatchQueue-v0`, four knobs.
    """

    @built_from(_BatchQueueV1)
    def __init__(self, given: _BatchQueueV1) -> None:
        self.numbers = given.numbers()
        super().__init__(given.runner(record=given.record), given.render_mode)


class BatchQueueV1VectorEnv(EngineVectorEnv):
    """`num_envs` independent engines stepped together; see `BatchQueueV1Env`, and `RunnerVectorEnv` for infos."""

    @built_from(_BatchQueueV1Vector)
    def __init__(self, given: _BatchQueueV1Vector) -> None:
        self.numbers = given.numbers()
        super().__init__(given.runner(given.num_envs), given.shared_traces)
