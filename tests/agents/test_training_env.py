"""Networks are trained in the same environments as single engines."""

import pytest

from agents.problems import network_ppo
from agents.sb3.environment import make_training_env


def test_clusters_are_trained_in_as_they_ask_for_decisions_themselves():
    env_id = "llmsched/Cluster-v0"
    env = make_training_env(2, None, 60.0, env_id, network_ppo.EPISODE_NUMBERS, horizon=2.0)
    env.reset()
    ended = []
    while not ended:
        _, _, _, infos = env.step([0, 1])
        ended += [info["episode"] for info in infos if "episode" in info]
    assert ended[0]["episode_mean_calls"] > 0
    with pytest.raises(ValueError, match="interval must be None for llmsched/Cluster-v0.* got 0.25"):
        make_training_env(2, 0.25, 60.0, env_id)
