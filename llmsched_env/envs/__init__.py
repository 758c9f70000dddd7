"""Gymnasium environments; importing this package registers them, and imports nothing but Gymnasium's registry."""

from gymnasium.envs.registration import register, registry

_ENTRY_POINTS = {
    "llmsched/BatchQueue-v0": "llmsched_env.envs.batch_queue:BatchQueue",
    "llmsched/BatchQueue-v1": "llmsched_env.envs.batch_queue_v1:BatchQueueV1",
    "llmsched/IndexPolicy-v0": "llmsched_env.envs.index_policy:IndexPolicy",
    "llmsched/RequestSelection-v0": "llmsched_env.envs.request_selection:RequestSelection",
    "llmsched/AgentNetwork-v0": "llmsched_env.envs.agent_network:AgentNetwork",
    "llmsched/Cluster-v0": "llmsched_env.envs.cluster:Cluster",
    "llmsched/Cluster-v1": "llmsched_env.envs.cluster_v1:ClusterV1",
}
ENV_IDS = tuple(_ENTRY_POINTS)


def register_envs() -> None:
    """Register every environment; calling it again changes nothing."""
    for env_id, name in _ENTRY_POINTS.items():
        if env_id not in registry:
            register(id=env_id, entry_point=f"{name}Env", vector_entry_point=f"{name}VectorEnv")


register_envs()
