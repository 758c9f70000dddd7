"""`llmsched/RequestSelection-v0`: an agent picks the requests of each batch one by one, single and vectorised."""

from math import inf

import numpy as np
from numba import types

from llmsched_env.envs.engine_env import EngineEnv, EngineVectorEnv
from llmsched_env.envs.episodes import Episodes, Load
from llmsched_env.envs.runner import EpisodeRunner
from llmsched_env.envs.selection import Selection, observe_slots
from llmsched_env.simulator.compiled import compiled_entry
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.world import WORLD_TYPE
from llmsched_env.slo import SLO
from llmsched_env.validation import check_integer
from llmsched_env.workloads import Workload


class RequestSelectionEnv(EngineEnv):
    """One LLM inference engine whose agent picks, batch by batch, which waiting requests are prefilled next.

    ## Description
    A batch takes a token of each decoding request and goes on with prompts that have started. As long as it has room,
    the agent picks one of the first `slots` waiting requests, in the order of the queue, to be prefilled next as far as
    the token budget allows, or ends the batch. No simulated time passes between the choices of a batch. A batch in
    which no request in a slot would fit runs without a choice. The simulator is that of `simulate`, and picking slot 0
    throughout gives the very rows of `sarathi` with the same limits.

    ## Action Space
    `Discrete(slots + 1)`: a slot, whose request comes next, or `slots`: run the batch as it is ("done"). A request that
    has been picked leaves its slot, and those behind it move up.

    `action_masks()` and `info["action_mask"]` say which actions are allowed: slots with a request of which tokens fit
    (budget, seats and KV memory), and "done" unless the batch is empty while one fits, or `work_conserving` is set.
    An action that is not allowed counts as "done", or as the first slot that is allowed if "done" is not.

    ## Observation Space
    `Box(0, 1, (40 + 7 * slots,), float32)`:

    | Num   | Observation                                                                                     |
    |-------|-------------------------------------------------------------------------------------------------|
    | 0-36  | features of the engine, as in `llmsched/BatchQueue-v0` (25-32, the knobs in force, are 0)       |
    | 37-39 | `llmsched_env.envs.selection.BATCH_FEATURES`: room, decodes and admissions of the batch         |
    | 40-   | `SLOT_FEATURES` of each slot, zeros if it is empty                                              |

    ## Rewards
    As in `llmsched/BatchQueue-v0`, for the time until the next choice: 0 between two choices for the same batch.

    ## Starting State
    An empty engine at time 0; the first choice is due when a request has arrived.

    ## Episode End
    1. Truncation: the clock reaches `horizon`.
    2. Termination (only with `horizon=None`): every request has left.

    ## Arguments
    `workload`, `engine`, `load`, `horizon`, `reward`, `slo`, `record`, `render_mode` and `reference` as in
    `llmsched/BatchQueue-v0`.

    | Name              | Default | Meaning                                                                           |
    |-------------------|---------|-----------------------------------------------------------------------------------|
    | `slots`           | `16`    | waiting requests to choose from                                                   |
    | `token_budget`    | `512`   | tokens in a batch; the engine's limit applies as well                             |
    | `max_num_seqs`    | `inf`   | requests in a batch                                                               |
    | `work_conserving` | `False` | "done" only where no request in a slot fits: the agent orders, and never holds    |

    Steps have different durations, many of them 0: discount by the time they took (`info["time"]`), or not at all.

    ## Vectorized environment
    `gym.make_vec("llmsched/RequestSelection-v0", num_envs=64)` as in `llmsched/BatchQueue-v0`; `action_masks()` is
    bool[num_envs, slots + 1], and `infos["action_mask"]` and `infos["time"]` are those of the observations returned.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        workload: Workload | str = "azure-chat",
        engine: EngineConfig | str = "llama-3.1-8b_h100-80gb_tp1_aic",
        load: Load = 0.9,
        horizon: float | None = 60.0,
        reward: str = "latency",
        slo: SLO | tuple[float, float] | None = None,
        slots: int = 16,
        token_budget: float = 512,
        max_num_seqs: float = inf,
        work_conserving: bool = False,
        record: str = "off",
        render_mode: str | None = None,
        reference: Scheduler | None = None,
    ) -> None:
        actions = Selection(slots, token_budget, max_num_seqs, work_conserving)
        episodes = Episodes(workload, engine, load, horizon, slo)
        super().__init__(SelectionRunner(episodes, actions, 1, reward, record, reference), render_mode)

    def action_masks(self) -> np.ndarray:
        """bool[slots + 1]: the actions that are allowed now."""
        return self._runner.masks[0].copy()


class RequestSelectionVectorEnv(EngineVectorEnv):
    """`num_envs` independent engines stepped together; see `RequestSelectionEnv`, and `RunnerVectorEnv` for infos."""

    def __init__(
        self,
        num_envs: int = 1,
        workload: Workload | str = "azure-chat",
        engine: EngineConfig | str = "llama-3.1-8b_h100-80gb_tp1_aic",
        load: Load = 0.9,
        horizon: float | None = 60.0,
        reward: str = "latency",
        slo: SLO | tuple[float, float] | None = None,
        slots: int = 16,
        token_budget: float = 512,
        max_num_seqs: float = inf,
        work_conserving: bool = False,
        reference: Scheduler | None = None,
    ) -> None:
        check_integer("num_envs", num_envs, at_least=1)
        actions = Selection(slots, token_budget, max_num_seqs, work_conserving)
        episodes = Episodes(workload, engine, load, horizon, slo)
        super().__init__(SelectionRunner(episodes, actions, num_envs, reward, "off", reference))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        obs, rewards, terminated, truncated, infos = super().step(actions)
        present = self._runner.step_info()  # where an episode ended, of the next one
        infos |= {name: present[name] for name in ("time", "action_mask")}
        return obs, rewards, terminated, truncated, infos

    def action_masks(self) -> np.ndarray:
        """bool[num_envs, slots + 1]: the actions that are allowed now."""
        return self._runner.masks.copy()


class SelectionRunner(EpisodeRunner):
    """Episodes in which the scheduler asks for choices; `masks` (bool[num_envs, slots + 1]) are the allowed ones."""

    at_boundaries = False

    def __init__(
        self,
        episodes: Episodes,
        actions: Selection,
        num_envs: int,
        reward: str,
        record: str,
        reference: Scheduler | None = None,
    ) -> None:
        super().__init__(episodes, actions, num_envs, None, reward, record, actions.num_features, reference)
        self.masks = np.zeros((num_envs, actions.slots + 1), np.bool_)
        kinds = (types.int64, types.int64, types.float32[:, ::1], types.boolean[:, ::1])
        self._observe_slots = compiled_entry(observe_slots, (WORLD_TYPE, *kinds))

    def start(self, g: int, rng: np.random.Generator) -> None:
        super().start(g, rng)
        self._observe_slots(self.simulator.world, g, g + 1, self.obs, self.masks)

    def step(self, actions: np.ndarray) -> None:
        super().step(actions)
        self._observe_slots(self.simulator.world, 0, len(self.masks), self.obs, self.masks)

    def step_info(self) -> dict[str, np.ndarray]:
        """As in other environments, and `action_mask`: bool[num_envs, slots + 1]."""
        return super().step_info() | {"action_mask": self.masks.copy()}
