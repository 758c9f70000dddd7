"""Trained policies as schedulers: a file or model of Stable-Baselines3, or any function of observations."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from llmsched_env.envs.actions import Actions
from llmsched_env.envs.batch_queue import BatchQueueArguments
from llmsched_env.envs.batch_queue_v1 import BatchQueueV1Arguments
from llmsched_env.envs.engine_runner import EngineArguments
from llmsched_env.envs.function_digest import function_digest
from llmsched_env.envs.index_policy import IndexPolicyArguments
from llmsched_env.envs.policy_controller import FunctionPolicy, Policy, PolicyController
from llmsched_env.envs.request_selection import RequestSelectionArguments
from llmsched_env.envs.steering import Steering
from llmsched_env.sb3.mlp_policies import network_of_model
from llmsched_env.sb3.normalization import Normalization
from llmsched_env.sb3.policy_file import PolicyDescription, normalization_of, read_policy
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_choice, did_you_mean

_ENGINES: dict[str, type[EngineArguments]] = {
    "llmsched/BatchQueue-v0": BatchQueueArguments,
    "llmsched/BatchQueue-v1": BatchQueueV1Arguments,
    "llmsched/IndexPolicy-v0": IndexPolicyArguments,
    "llmsched/RequestSelection-v0": RequestSelectionArguments,
}
_NETWORKS = ("llmsched/Cluster-v0", "llmsched/Cluster-v1", "llmsched/AgentNetwork-v0")


def as_scheduler(
    policy: Any, env: str | None = None, *, name: str | None = None, vec_normalize: Any = None, **env_arguments: Any
) -> Scheduler:
    """The scheduler that a trained policy is, for `simulate`, `compare`, reports and the benchmark.

    In a run the policy sees what it sees in its environment, and its actions mean the same. A policy acts
    deterministically: its most probable action, or its mean.

    Args:
        policy: one of
            - the path of a file that `model.save` of Stable-Baselines3, or `save_policy`, wrote. Only weights and JSON
              are read, nothing in the file is run, and neither torch nor Stable-Baselines3 is needed. It must be an
              `MlpPolicy` of PPO, A2C, DQN, SAC, TD3 or sb3-contrib's MaskablePPO;
            - a model of Stable-Baselines3, whose weights are taken as they are now; any policy that `predict` evaluates
              without a state. Any other object with `predict(observation, deterministic=True)` does, which may take
              `action_masks` as well;
            - a function: observation -> action, or (observation, mask) -> action in an environment with masks.
              Observations are f4[features], masks i1[n]. It must not keep anything from call to call, since runs share
              it, in several threads. An attribute `digest` (text that changes with anything that decides) lets
              comparisons store its runs; see `function_digest` for what is done without.
        env: id of the environment that the policy was trained in, such as "llmsched/IndexPolicy-v0" ("IndexPolicy" for
            short): one of a single engine. None: the one in the description that `save_policy` put into the file, or
            else the only one that has, with the `env_arguments`, as many features and the same actions as the file.
        name: what reports call it. None: that of the description, of the file or of the function.
        vec_normalize: of the training, for the statistics of observations: a `VecNormalize`, or the path of a file that
            it saved, of which nothing is run. None: what `save_policy` stored; else, next to a file `my.zip`, the file
            `my.vecnormalize.pkl` or `vecnormalize.pkl` if it exists; for a model that of its environment. False: none.
        env_arguments: arguments of the environment that decide what actions mean and when they are due, where they were
            not the defaults: `decision_interval`, `token_budgets`, `admission_limits`, `watermarks`, `arms`, `slots`,
            `token_budget`, `max_num_seqs`, `work_conserving`. They replace those of the description. A file of
            `model.save` does not tell them: without a `decision_interval` the policy decides before every batch.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no policy, or one that takes stable-baselines3 to evaluate; if the environment is not
            known, or its observations or actions are not those of the policy; naming what is wrong and what is allowed.
    """
    source = _source(policy)
    arguments = env_arguments | {}
    if source.description is not None:
        arguments = dict(source.description.env_arguments) | arguments
    try:
        env = _env_id(env, source, arguments)
        steering = _steering(env, arguments)
        _check_fits(env, steering, source)
        normalization = _normalization(vec_normalize, source, len(steering.features))
    except ValueError as error:
        raise ValueError(f"{source.what}: {error}") from None
    controller = PolicyController(source.make(steering), steering, normalization)
    return replace(
        steering.actions.scheduler, name=name or source.name, controller=controller, reference=f"{source.what}, {env}"
    )


def features_of(env: str, **env_arguments: Any) -> tuple[str, ...]:
    """Names of what a policy observes in an environment of one engine, for `PolicyDescription.features`.

    Args:
        env: id of the environment.
        env_arguments: as for `as_scheduler`.

    Raises:
        ValueError: for another environment, or an argument that is wrong.
    """
    return _steering(_known(env), env_arguments).features


def actions_of(env: str, **env_arguments: Any) -> Actions:
    """What the actions of an environment of one engine mean, for constant ones; arguments and errors as `features_of`.

    `actions_of(env).scheduler` with the parameters `actions_of(env).params(action)` is the scheduler of an agent that
    always takes that action.
    """
    return _steering(_known(env), env_arguments).actions


@dataclass(frozen=True, slots=True)
class _Source:
    """A policy and what is known of it.

    Attributes:
        what: it is, for messages.
        name: what reports call it.
        make: the policy, for a steering that fits.
        num_features: that it observes; None: not known.
        space: of its actions; None: not known.
        description: from its file.
        normalization: that comes with it.
        path: of its file.
    """

    what: str
    name: str
    make: Callable[[Steering], Policy]
    num_features: int | None = None
    space: Space[Any] | None = None
    description: PolicyDescription | None = None
    normalization: Normalization | None = None
    path: Path | None = None


def _source(policy: Any) -> _Source:
    if isinstance(policy, str | Path):
        return _of_file(Path(policy))
    if callable(getattr(policy, "predict", None)):
        return _of_model(policy)
    if callable(policy):
        name = getattr(policy, "__name__", type(policy).__name__)
        return _Source(f"policy {name}", name, lambda steering: _function_policy(policy, steering))
    raise ValueError(f"policy must be a path, a model with predict(), or a function of observations, got {policy!r}")


def _of_file(path: Path) -> _Source:
    file = read_policy(path)
    network, description = file.network, file.description
    name = path.stem if description is None else description.name
    return _Source(
        f"policy {path}",
        name,
        lambda steering: network,
        network.num_features,
        network.space,
        description,
        file.normalization,
        path,
    )


def _of_model(model: Any) -> _Source:
    kind = type(model).__name__
    shape = getattr(getattr(model, "observation_space", None), "shape", None)
    return _Source(
        f"model {kind}",
        kind,
        lambda steering: _model_policy(model, steering),
        None if shape is None else int(np.prod(shape)),
        getattr(model, "action_space", None),
        normalization=normalization_of(model),
    )


def _function_policy(function: Callable[..., Any], steering: Steering) -> Policy:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in: no signature to look at
        return FunctionPolicy(function, False, steering, function_digest(function))
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [p for p in parameters if p.kind in positional]
    required = [p for p in places if p.default is inspect.Parameter.empty]
    if len(required) > 2 or (len(required) == 2 and steering.masks is None):
        allowed = "(observation)" if steering.masks is None else "(observation) or (observation, mask)"
        raise ValueError(f"a policy must take {allowed}, got a function of {', '.join(p.name for p in required)}")
    optional_mask = steering.masks is not None and any(p.name in ("mask", "action_mask") for p in places[1:2])
    return FunctionPolicy(function, len(required) == 2 or optional_mask, steering, function_digest(function))


def _model_policy(model: Any, steering: Steering) -> Policy:
    """The network of a model if it is one that NumPy can evaluate; else its own `predict`, one call at a time."""
    if hasattr(model, "policy") and hasattr(model, "policy_kwargs"):
        try:
            return network_of_model(model)
        except ValueError:  # a policy of another kind
            model = copy.deepcopy(model.policy)  # as it is now, whatever training does with it
    takes_masks = "action_masks" in inspect.signature(model.predict).parameters

    def predict(observation: np.ndarray, mask: np.ndarray | None = None) -> Any:
        masks = {"action_masks": mask} if takes_masks and mask is not None else {}
        action, state = model.predict(observation, deterministic=True, **masks)
        if state is not None:
            raise ValueError("the policy must not keep a state from call to call, as recurrent ones do")
        return action

    return FunctionPolicy(predict, steering.masks is not None, steering, function_digest(model), one_at_a_time=True)


def _known(env: str) -> str:
    """The full id of an environment of one engine."""
    ids = (*_ENGINES, *_NETWORKS)
    short = {  # without its version the first one is meant, as ever
        form: each for each in reversed(ids) for form in (each, each.partition("/")[2], each[9:].partition("-")[0])
    }
    if env not in short:
        raise ValueError(f"env must be the id of an environment, got {env!r}; {did_you_mean(str(env), ids)}")
    if short[env] in _NETWORKS:
        raise ValueError(
            f"{short[env]} is a network of engines, whose policy is no scheduler of one engine; run episodes of it: "
            f"env = gymnasium.make({short[env]!r}), env.step(action) until it is over, then env.unwrapped.result(); "
            f"env must be one of {', '.join(_ENGINES)}"
        )
    return short[env]


def _env_id(env: str | None, source: _Source, arguments: Mapping[str, Any]) -> str:
    described = None if source.description is None else _known(source.description.env)
    if env is not None:
        known = _known(env)
        if described not in (None, known):
            raise ValueError(f"env must be {described}, for which it was saved, got {env!r}")
        return known
    if described is not None:
        return described
    if source.num_features is None or source.space is None:
        raise ValueError(f"env must be given, one of {', '.join(_ENGINES)}: a function does not tell it")
    fitting = [
        each
        for each, kind in _ENGINES.items()
        if arguments.keys() <= _deciding(kind)
        and _space_of(steering := _steering(each, arguments)) == source.space
        and len(steering.features) == source.num_features
    ]
    if len(fitting) != 1:
        raise ValueError(
            f"env must be given, one of {', '.join(_ENGINES)}, with those of its arguments that were not the defaults: "
            f"{source.num_features} features and actions of {source.space} fit {', '.join(fitting) or 'none of them'}"
        )
    return fitting[0]


def _space_of(steering: Steering) -> Space[Any]:
    return steering.actions.space


def _deciding(kind: type[EngineArguments]) -> frozenset[str]:
    """The arguments that decide what actions mean: those that not every environment has."""
    return frozenset(field.name for field in fields(kind)) - frozenset(field.name for field in fields(EngineArguments))


def _steering(env: str, arguments: Mapping[str, Any]) -> Steering:
    kind = _ENGINES[env]
    for name in arguments:
        check_choice(f"an argument that decides what actions of {env} mean", name, sorted(_deciding(kind)))
    try:
        return kind(**arguments).steering()
    except TypeError as error:
        raise ValueError(
            f"arguments of {env} must be those of the environment, got {dict(arguments)}: {error}"
        ) from None


def _check_fits(env: str, steering: Steering, source: _Source) -> None:
    known, given = steering.features, () if source.description is None else source.description.features
    if given and given != known:
        missing, unknown = [n for n in known if n not in given], [n for n in given if n not in known]
        what = "in another order" if not missing and not unknown else f"without {missing}, and {unknown} besides"
        raise ValueError(f"its features must be those of {env} in this version; it observes them {what}")
    if source.num_features not in (None, len(known)):
        raise ValueError(f"it must observe the {len(known)} features of {env}, got {source.num_features}")
    space = steering.actions.space
    if source.space is not None and source.space != space:
        raise ValueError(
            f"its actions must be those of {env} with these arguments, {space}, got {source.space}; arguments that "
            f"decide: {', '.join(sorted(_deciding(_ENGINES[env])))}"
        )


def _normalization(given: Any, source: _Source, num_features: int) -> Normalization | None:
    if given is False:
        return None
    if given is None:
        beside = (
            []
            if source.path is None
            else [source.path.with_suffix(".vecnormalize.pkl"), source.path.with_name("vecnormalize.pkl")]
        )
        found = [path for path in beside if path.is_file()]
        use = source.normalization
        if use is None and found:
            use = Normalization.read(found[0])
    else:
        use = Normalization.read(given) if isinstance(given, str | Path) else Normalization.of(given)
    if use is not None and len(use.mean) != num_features:
        raise ValueError(f"vec_normalize must be of {num_features} features, got {len(use.mean)}")
    return use
