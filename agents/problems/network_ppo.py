"""PPO on `llmsched/AgentNetwork-v0`, from scratch."""

from agents.sb3.environment import make_training_env
from agents.sb3.ppo import BudgetedPPO, PPOSettings, make_model
from agents.training_budget import TrainingBudget
from llmsched_env.envs.agent_network import AgentNetworkEnv
from llmsched_env.evaluation.benchmark.network_cases import NetworkSetting
from llmsched_env.results.records import NetworkResult
from llmsched_env.workloads.rybko_stolyar import RYBKO_STOLYAR_ENGINES
from llmsched_env.workloads.task_sources import FixedTasks

SETTINGS = PPOSettings(n_steps=50, batch_size=800, learning_rate=1e-3, ent_coef=0.003, time_constant=400.0)
EPISODE_NUMBERS = ("episode_arrived", "episode_finished", "episode_mean_tasks", "episode_mean_calls")


def train(
    setting: NetworkSetting, steps: int, num_envs: int = 16, seed: int = 0, settings: PPOSettings = SETTINGS
) -> BudgetedPPO:
    """A model trained for `steps` steps over all environments, starting from random weights."""
    env = make_training_env(
        num_envs,
        setting.interval,
        settings.time_constant,
        env_id="llmsched/AgentNetwork-v0",
        episode_numbers=EPISODE_NUMBERS,
        load=setting.load,
        horizon=setting.training_horizon,
    )
    env.seed(seed)
    budget = TrainingBudget(steps)
    model = make_model(env, setting.interval, settings, budget, seed)
    budget.start()
    return model.learn(steps)


def run_agent(model: BudgetedPPO, setting: NetworkSetting, seed: int) -> NetworkResult:
    """One held-out run under the most probable actions of a model."""
    env = AgentNetworkEnv(
        FixedTasks(setting.tasks(seed)),
        RYBKO_STOLYAR_ENGINES,
        horizon=setting.horizon,
        decision_interval=setting.interval,
        record="batches",
    )
    obs, _ = env.reset(seed=0)
    truncated = False
    while not truncated:
        action, _ = model.predict(obs, deterministic=True)
        obs, _, _, truncated, _ = env.step(action)
    return env.result()
