"""``lfgcl list``: environments, networks and agents."""

from importlib.util import find_spec
from typing import Any

from lfgcl_env import zoo
from lfgcl_env.cli.targets import default_weights
from lfgcl_env.cli.text import columns
from lfgcl_env.envs.registration import GLOBAL_IDS, LAYERWISE_IDS
from lfgcl_env.networks import network_names
from lfgcl_env.search.protocol import own_agents


def show_names(_: dict[str, Any]) -> None:
    """Print all that can be named."""
    missing = " (not installed: run `pip install lfgcl-env[sb3]`)"
    sb3 = "Stable-Baselines3" + ("" if find_spec("stable_baselines3") else missing)
    ids = GLOBAL_IDS | LAYERWISE_IDS
    print("environments")
    for line in columns([[name, network, default_weights(name)] for name, network in ids.items()]):
        print(f"  {line}")
    print("networks")
    for line in (*network_names(), "torchvision:NAME", "package.module:function"):
        print(f"  {line}")
    print("agents")
    agents = [[name, sb3] for name in zoo.ALGORITHMS]
    agents += [[name, f"agents/{name}.py"] for name in own_agents()]
    for line in columns([*agents, ["module:factory", "your own, see lfgcl_env.search.protocol"]]):
        print(f"  {line}")
