"""Stable-Baselines3's view of a native Gymnasium vector environment."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv


class SB3VecEnv(VecEnv):
    """A `VecEnv` over a vector environment that resets in the same step, as Stable-Baselines3 does.

    The info of an environment is empty, to cost nothing, unless its episode ended; then it holds
    `terminal_observation`, `TimeLimit.truncated` and the numbers of the episode (`episode_arrived`, ...).

    Attributes:
        seconds: f8[num_envs], simulated time that the last step took, for learners that discount in time.

    Args:
        env: a vector environment in `AutoresetMode.SAME_STEP`.

    Raises:
        ValueError: for another autoreset mode.
    """

    def __init__(self, env: VectorEnv) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"env must reset in the same step (AutoresetMode.SAME_STEP), got autoreset mode {mode!r}")
        self.env = env
        self.seconds = np.zeros(env.num_envs)
        self._times = np.zeros(env.num_envs)
        self._actions: np.ndarray | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> np.ndarray:
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        observations: np.ndarray
        observations, batch = self.env.reset(seed=seeds)  # type: ignore[arg-type]  # a seed for each environment
        self._times = batch.get("time", np.zeros(self.num_envs))
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, terminated, truncated, batch = self.env.step(self._actions)
        dones = terminated | truncated
        self._note_time(batch, dones)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            final = batch["final_info"]
            infos[i] = {name: final[name][i].item() for name in final if name.startswith("episode_")}
            infos[i]["terminal_observation"] = batch["final_obs"][i]
            infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return observations, rewards.astype(np.float32), dones, infos

    def _note_time(self, batch: dict[str, Any], dones: np.ndarray) -> None:
        if "time" in batch:
            ended = np.where(dones, batch["final_info"]["time"], batch["time"]) if dones.any() else batch["time"]
            self.seconds, self._times = ended - self._times, batch["time"]

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Not possible: all environments share one set of attributes.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"the environments share {attr_name!r}; make a new vector environment to change it")

    def env_method(
        self, method_name: str, *args: Any, indices: int | Iterable[int] | None = None, **kwargs: Any
    ) -> list[Any]:
        """`action_masks`, for sb3-contrib, and `set_episodes`, of all; there are no single environments to call of.

        Raises:
            NotImplementedError: for another method, or for episodes of some environments.
        """
        if method_name == "set_episodes" and indices is None:
            return [self.env.set_episodes(*args, **kwargs)] * self.num_envs  # type: ignore[attr-defined]
        if method_name == "action_masks":
            return list(self.env.action_masks()[self._get_indices(indices)])  # type: ignore[attr-defined]
        raise NotImplementedError(f"there are no single environments whose {method_name!r} could be called")

    def env_is_wrapped(self, wrapper_class: type, indices: int | Iterable[int] | None = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
