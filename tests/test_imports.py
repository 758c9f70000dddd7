"""What importing and running the package loads, each in a fresh process; and the list of public names."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import llmsched_env as ls

ROOT = Path(__file__).resolve().parents[1]
STUB = ROOT / "llmsched_env/__init__.pyi"
HEAVY = {"gymnasium", "jinja2", "matplotlib", "optuna", "pandas", "rich", "scipy", "stable_baselines3", "torch", "tqdm"}
LIGHT_MODULES = (
    "validation",
    "files",
    "slo",
    "intervals",
    "objectives",
    "machine.config",
    "machine.make_profile",
    "machine.profiles",
    "results.records",
    "results.stability",
    "tables.request_table",
    "tables.task_table",
)

ENGINE = """
import llmsched_env as ls
engine = ls.EngineConfig.for_gpu("llama-3.1-8b_h100-80gb_tp1_aic")
workload = ls.preset("azure-chat", horizon=5.0).at_load(0.8, engine)
"""
BASELINE = f"""
import baselines
{ENGINE}
assert ls.simulate(baselines.sarathi, workload, engine).drained
"""
PRETRAINED = f"""
from llmsched_env.policies import pretrained
{ENGINE}
assert ls.simulate(pretrained.load("slo_pausing"), workload, engine).drained
"""
NETWORK = f"""
import baselines
from baselines import routers
from llmsched_env.policies import pretrained
{ENGINE}
for router in (routers.get("join_shortest_queue"), pretrained.router()):
    assert ls.simulate_network(baselines.sarathi, workload, [engine, engine], router).drained
"""


def run(code: str) -> str:
    """What a new process that runs `code` prints."""
    call = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=False)
    assert call.returncode == 0, call.stderr
    return call.stdout


def loaded(code: str, before: str = "") -> set[str]:
    """The packages that `code` loads modules of, in a new process that has run `before`."""
    script = f"""
import json, sys
{before}
present = set(sys.modules)
{code}
print(json.dumps(sorted({{name.partition(".")[0] for name in set(sys.modules) - present}})))
"""
    return set(json.loads(run(script)))


def test_importing_the_package_loads_nothing_but_the_standard_library():
    assert loaded("import llmsched_env") - sys.stdlib_module_names == {"llmsched_env"}


def test_configurations_rows_and_helpers_do_without_numba():
    found = loaded("\n".join(f"import llmsched_env.{name}" for name in LIGHT_MODULES))
    assert "llmsched_env" in found and not found & {"numba", *HEAVY}


@pytest.mark.parametrize("code", [BASELINE, PRETRAINED, NETWORK], ids=["baseline", "pretrained", "network"])
def test_simulating_loads_numpy_and_numba_alone(code):
    # Where scipy is installed, numba imports scipy.linalg as soon as it compiles or loads anything.
    found = loaded(code, before="import numba\nnumba.njit(lambda: 0)()")
    assert "llmsched_env" in found and not found & HEAVY


@pytest.mark.parametrize(
    "imports",
    [
        "import gymnasium\nimport llmsched_env",
        "import llmsched_env\nimport gymnasium",
        "import llmsched_env\nimport gymnasium.envs.registration",
        "import llmsched_env as ls\nassert ls.envs.ENV_IDS\nimport gymnasium",
        "from llmsched_env.envs.batch_queue import BatchQueueEnv\nimport gymnasium",
        "import gymnasium\ngymnasium.make('llmsched_env:llmsched/BatchQueue-v0')",
    ],
    ids=["gymnasium first", "package first", "registry", "by attribute", "class alone", "named in the id"],
)
def test_environments_are_registered_whatever_is_imported_first(imports):
    script = f"{imports}\nprint(*(name for name in gymnasium.registry if name.startswith('llmsched/')))"
    assert run(script).split() == list(ls.envs.ENV_IDS)


@pytest.mark.parametrize("imports", ["import gymnasium, llmsched_env", "import llmsched_env, gymnasium"])
def test_gymnasium_makes_our_environments(imports):
    script = f"""
{imports}
env = gymnasium.make("llmsched/BatchQueue-v0")
env.reset(seed=0)
print(type(env.unwrapped).__name__, gymnasium.make_vec("llmsched/BatchQueue-v0", num_envs=2).num_envs)
"""
    assert run(script).split() == ["BatchQueueEnv", "2"]


def test_every_listed_name_is_that_of_its_module():
    listed = {
        alias.asname: (node.module, alias.name)
        for node in ast.parse(STUB.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert ls.__all__ == sorted(listed)
    assert set(ls.__all__) <= set(dir(ls))
    for name, (module, original) in listed.items():
        assert name == original  # `import A as A` is how a stub exports
        assert getattr(ls, name) is getattr(sys.modules[module], name)


def test_no_public_name_is_hidden_by_a_submodule():
    """Importing a submodule sets an attribute of the package, whatever the list says."""
    modules = {path.stem for path in (ROOT / "llmsched_env").iterdir()}
    assert modules & set(ls.__all__) == {"envs", "theory"}


def test_submodules_are_attributes_and_other_names_are_not():
    script = """
import llmsched_env as ls
print(ls.machine.__name__, ls.workloads.dist.__name__, hasattr(ls, "nothing"), hasattr(ls, "_nothing"))
try:
    from llmsched_env import nothing
except ImportError as error:
    print(error.name)
"""
    assert run(script).split() == [
        "llmsched_env.machine",
        "llmsched_env.workloads.dist",
        "False",
        "False",
        "llmsched_env",
    ]


def test_what_a_submodule_lacks_is_named():
    script = """
import sys
sys.modules["numba"] = None
import llmsched_env as ls
try:
    ls.theory
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run(script).strip() == "numba"
