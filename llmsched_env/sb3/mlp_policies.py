"""The network that decides in an `MlpPolicy` of Stable-Baselines3, as an `MLP`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from llmsched_env.sb3.engine_network import TERMS, EngineNetwork
from llmsched_env.sb3.mlp import MLP
from llmsched_env.sb3.slot_network import PREFERENCE, SlotNetwork

Network = MLP | SlotNetwork | EngineNetwork
ALTERNATIVE = "load the model with stable-baselines3 and call as_scheduler(model, ...), which takes every policy"


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a class of policies stores the network that decides.

    Attributes:
        hidden: before the number of a layer in the name of its weights.
        last: before the weights of the last layer; None: it is the last of the numbered ones.
        others: regular expression of names that decide nothing while actions are deterministic.
        activation: the default.
        squashed: whether actions of a `Box` are squashed.
    """

    hidden: str
    last: str | None
    others: str
    activation: str
    squashed: bool = False


_CRITICS = r"critic(_target)?\.qf\d+\.\d+\.\w+"
_ACTOR_CRITIC = _Kind(
    "mlp_extractor.policy_net.", "action_net", r"mlp_extractor\.value_net\.\d+\.\w+|value_net\.\w+|log_std", "tanh"
)
_KINDS = {
    "stable_baselines3.common.policies": _ACTOR_CRITIC,
    "sb3_contrib.common.maskable.policies": _ACTOR_CRITIC,
    "stable_baselines3.dqn.policies": _Kind("q_net.q_net.", None, r"q_net_target\.q_net\.\d+\.\w+", "relu"),
    "stable_baselines3.sac.policies": _Kind(
        "actor.latent_pi.", "actor.mu", rf"actor\.log_std\.\w+|{_CRITICS}", "relu", squashed=True
    ),
    "stable_baselines3.td3.policies": _Kind(
        "actor.mu.", None, rf"actor_target\.mu\.\d+\.\w+|{_CRITICS}", "relu", squashed=True
    ),
}
"""By the module of the policy's class: PPO and A2C, MaskablePPO, DQN, SAC, TD3 (and DDPG)."""

_ACTIVATIONS = {
    "Tanh": "tanh",
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}
_HARMLESS = (  # arguments of policies that change the weights, or nothing, but not what is computed from them
    *("activation_fn", "net_arch", "ortho_init", "log_std_init", "full_std", "share_features_extractor"),
    *("optimizer_class", "optimizer_kwargs", "n_critics", "normalize_images"),
)


def network_of(
    module: str, arguments: Mapping[str, Any], use_sde: bool, state: Mapping[str, np.ndarray], space: Space[Any]
) -> Network:
    """The network that `model.predict(observation, deterministic=True)` evaluates.

    Args:
        module: that of the class of the policy.
        arguments: the model's `policy_kwargs`; of classes their `str` does.
        use_sde: whether the model explores with gSDE.
        state: the `state_dict` of the policy.
        space: of actions.

    Raises:
        ValueError: if the policy computes anything else than an MLP, or may do so.
    """
    if PREFERENCE in state:
        return SlotNetwork(state, space)
    if TERMS in state:
        return EngineNetwork(state, space)
    if module not in _KINDS:
        raise ValueError(f"policies of {module} are not known to be MLPs; {ALTERNATIVE}")
    others = {k: v for k, v in arguments.items() if k not in _HARMLESS and not (k == "use_sde" and str(v) == "False")}
    if others or use_sde:
        what = [*others, *(["use_sde"] if use_sde and "use_sde" not in others else [])]
        raise ValueError(f"{', '.join(what)} may change what its network computes; {ALTERNATIVE}")
    kind = _KINDS[module]
    names = _layer_names(kind, state)
    layers = [(state[f"{name}.weight"], state[f"{name}.bias"]) for name in names]
    return MLP(layers, _activation(kind, arguments), space, squashed=kind.squashed)


def network_of_model(model: Any) -> Network:
    """The network of a model of Stable-Baselines3, with its weights as they are now.

    Raises:
        ValueError: as `network_of`.
    """
    state = {name: tensor.detach().cpu().numpy() for name, tensor in model.policy.state_dict().items()}
    use_sde = bool(getattr(model, "use_sde", False))
    return network_of(type(model.policy).__module__, model.policy_kwargs or {}, use_sde, state, model.action_space)


def _layer_names(kind: _Kind, state: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the layers, in order; whatever else is in `state` must be known to decide nothing."""
    numbered = re.compile(re.escape(kind.hidden) + r"(\d+)\.weight")
    places = sorted(int(found[1]) for found in map(numbered.fullmatch, state) if found)
    names = [f"{kind.hidden}{place}" for place in places] + ([] if kind.last is None else [kind.last])
    wanted = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    unknown = [name for name in state if name not in wanted and not re.fullmatch(kind.others, name)]
    missing = sorted(wanted - state.keys())
    if unknown or missing or not names or places != list(range(0, 2 * len(places), 2)):
        raise ValueError(
            f"its weights must be those of an MlpPolicy, layers {kind.hidden}0, 2, ...; unknown: {unknown}, "
            f"missing: {missing}; {ALTERNATIVE}"
        )
    return names


def _activation(kind: _Kind, arguments: Mapping[str, Any]) -> str:
    if "activation_fn" not in arguments:
        return kind.activation
    given = str(arguments["activation_fn"])
    found = re.fullmatch(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>", given)
    if found is None or found[1] not in _ACTIVATIONS:
        raise ValueError(
            f"activation_fn must be one of torch.nn's {', '.join(_ACTIVATIONS)}, got {given}; {ALTERNATIVE}"
        )
    return _ACTIVATIONS[found[1]]
