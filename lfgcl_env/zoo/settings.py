"""Settings of Stable-Baselines3's algorithms, read from YAML files in rl_zoo3's form."""

from pathlib import Path
from typing import Any

import yaml

from lfgcl_env.edge.choices import check_choice

CLASSES = {
    "ddpg": "stable_baselines3.DDPG",
    "td3": "stable_baselines3.TD3",
    "sac": "stable_baselines3.SAC",
    "tqc": "sb3_contrib.TQC",
    "crossq": "sb3_contrib.CrossQ",
    "ppo": "stable_baselines3.PPO",
}
"""The classes of the algorithms that have settings, by rl_zoo3's names for them."""

ALGORITHMS = tuple(CLASSES)
"""The algorithms of Stable-Baselines3 and sb3-contrib that have settings."""


def path(algorithm: str) -> Path:
    """Return the file with an algorithm's settings, as ``rl_zoo3 --conf-file`` takes it.

    Raises:
        ValueError: for an unknown algorithm.

    >>> path("ddpg").name
    'ddpg.yml'
    """
    check_choice(algorithm, ALGORITHMS, "algorithm")
    return Path(__file__).parent / "hyperparams" / f"{algorithm}.yml"


def settings(algorithm: str, env_id: str | None = None) -> dict[str, Any]:
    """Return the settings of an algorithm for an environment, as written in its file.

    Args:
        algorithm: one of ``ALGORITHMS``.
        env_id: of the environment; the default entry is for ids without one of their own, and None.

    Raises:
        ValueError: for an unknown algorithm.

    >>> settings("ddpg", "LFGCL-ResNet56-v0")["policy"]
    'MlpPolicy'
    """
    table: dict[str, dict[str, Any]] = yaml.safe_load(path(algorithm).read_text(encoding="utf-8"))
    return table.get(env_id or "default", table["default"])
