"""A released environment keeps its spaces: agents that were trained on it go on working."""

import zlib

import gymnasium as gym
import pytest

from llmsched_env.envs import ENV_IDS
from llmsched_env.envs.batch_queue import FEATURES
from llmsched_env.envs.features import ENGINE_FEATURES
from llmsched_env.envs.network_features import class_features, routing_features
from llmsched_env.envs.outlook import AHEAD_FEATURES
from llmsched_env.envs.request_selection import BATCH_FEATURES, SLOT_FEATURES

OBSERVATIONS = {
    "llmsched/BatchQueue-v0": (37,),
    "llmsched/BatchQueue-v1": (39,),
    "llmsched/IndexPolicy-v0": (37,),
    "llmsched/RequestSelection-v0": (40 + 7 * 16,),
    "llmsched/AgentNetwork-v0": (4 * 2 * 4 + 3 * 2 + 2 * 4 + 2,),
    "llmsched/Cluster-v0": (8 * 4 + 4,),
    "llmsched/Cluster-v1": (13 * 4 + 9,),
}


def test_every_environment_is_held_to_its_spaces():
    assert OBSERVATIONS.keys() == set(ENV_IDS)


@pytest.mark.parametrize("env_id", OBSERVATIONS)
def test_the_observation_keeps_its_shape(env_id):
    space = gym.make(env_id, disable_env_checker=True).observation_space
    assert (space.shape, space.low.min(), space.high.max()) == (OBSERVATIONS[env_id], 0.0, 1.0)


@pytest.mark.parametrize(
    "features, digest",
    [
        (FEATURES, 3175608364),
        (ENGINE_FEATURES, 452606832),
        (AHEAD_FEATURES, 2916643682),
        ((*BATCH_FEATURES, *SLOT_FEATURES), 1921756929),
        (class_features(2, 4), 3729301918),
        (routing_features(4), 2079973723),
    ],
)
def test_the_features_keep_their_names_scales_and_places(features, digest):
    rows = [(feature.name, feature.scale) for feature in features]
    assert zlib.crc32(repr(rows).encode()) == digest, rows
