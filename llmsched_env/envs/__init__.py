"""Gymnasium environments; importing this module registers them."""

import gymnasium as gym

ENV_IDS = ("llmsched/BatchQueue-v0",)


def register_envs() -> None:
    """Register every environment; calling it again changes nothing."""
    if "llmsched/BatchQueue-v0" not in gym.registry:
        gym.register(
            id="llmsched/BatchQueue-v0",
            entry_point="llmsched_env.envs.batch_queue:BatchQueueEnv",
            vector_entry_point="llmsched_env.envs.batch_queue:BatchQueueVectorEnv",
        )


register_envs()
