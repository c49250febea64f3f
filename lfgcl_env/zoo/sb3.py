"""Stable-Baselines3 agents with this package's settings."""

import importlib
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np

from lfgcl_env.zoo.settings import settings


def make(algorithm: str, env: gym.Env[Any, Any], seed: int, **changes: Any) -> Any:
    """Make an agent of Stable-Baselines3 as rl_zoo3 would from the same settings.

    Args:
        algorithm: one of ``ALGORITHMS``.
        env: an environment of this package; it is wrapped as the settings say.
        seed: of the agent and its environment.
        **changes: settings that replace those of the file, or are added to them.

    Returns:
        A ``BaseAlgorithm``.

    Raises:
        ValueError: for an unknown algorithm.
        ImportError: if Stable-Baselines3 is missing; names the extra to install.

    >>> import lfgcl_env
    >>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=4)
    >>> make("ddpg", env, seed=0).learning_starts
    40
    """
    chosen = settings(algorithm, env.spec.id if env.spec else None) | changes
    check_installed()
    kind = getattr(importlib.import_module("stable_baselines3"), algorithm.upper())
    for wrapper in chosen.pop("env_wrapper", []):
        env = _wrapped(env, wrapper)
    if chosen.pop("noise_type", None) == "normal":
        chosen["action_noise"] = _normal_noise(env, chosen.pop("noise_std"))
    chosen.pop("n_timesteps", None)
    chosen.setdefault("device", "cpu")  # networks this small are faster there
    return kind(env=env, seed=seed, **chosen)


def check_installed() -> None:
    """Make sure that Stable-Baselines3 is there.

    Raises:
        ImportError: if it is missing; names the extra to install.
    """
    if find_spec("stable_baselines3") is None:
        raise ImportError(
            "agents ddpg, td3, sac and ppo need Stable-Baselines3: run `pip install lfgcl-env[sb3]`"
        )


def _wrapped(env: gym.Env[Any, Any], wrapper: str | dict[str, dict[str, Any]]) -> gym.Env[Any, Any]:
    """Apply a wrapper given as ``"module.Class"`` or ``{"module.Class": arguments}``."""
    ((name, arguments),) = ({wrapper: {}} if isinstance(wrapper, str) else wrapper).items()
    module, _, kind = name.rpartition(".")
    wrapped: gym.Env[Any, Any] = getattr(importlib.import_module(module), kind)(env, **arguments)
    return wrapped


def _normal_noise(env: gym.Env[Any, Any], std: float) -> Any:
    from stable_baselines3.common.noise import NormalActionNoise

    assert env.action_space.shape is not None
    zeros = np.zeros(env.action_space.shape)
    return NormalActionNoise(mean=zeros, sigma=np.full_like(zeros, std))
