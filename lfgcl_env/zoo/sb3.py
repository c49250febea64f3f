"""Stable-Baselines3 agents with this package's settings."""

import ast
import importlib
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.edge.schema import short
from lfgcl_env.zoo.settings import ALGORITHMS, CLASSES, settings


def make(algorithm: str, env: gym.Env[Any, Any], seed: int, **changes: Any) -> Any:
    """Make an agent of Stable-Baselines3 as rl_zoo3 would from the same settings.

    Args:
        algorithm: one of ``ALGORITHMS``.
        env: an environment of this package; it is wrapped as the settings say. One with several
            workers becomes a :class:`~lfgcl_env.zoo.TogetherVecEnv` of as many.
        seed: of the agent and its environment.
        **changes: settings that replace those of the file, or are added to them.

    Returns:
        A ``BaseAlgorithm``.

    Raises:
        ValueError: for an unknown algorithm or kind of noise, or unreadable ``policy_kwargs``.
        ImportError: if a package is missing; names the extra to install.

    >>> import lfgcl_env
    >>> env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=4)
    >>> make("ddpg", env, seed=0, batch_size=32).batch_size
    32
    """
    spec = env.unwrapped.spec
    chosen = settings(algorithm, spec.id if spec else None) | changes
    check_installed(algorithm)
    kind = _import_name(CLASSES[algorithm])
    for wrapper in chosen.pop("env_wrapper", []):
        env = _wrap(env, wrapper)
    if (noise := chosen.pop("noise_type", None)) is not None:
        check_choice(noise, ["normal"], "noise_type")
        chosen["action_noise"] = _normal_noise(env, chosen.pop("noise_std"))
    if isinstance(chosen.get("policy_kwargs"), str):
        chosen["policy_kwargs"] = _read(chosen["policy_kwargs"])
    chosen.pop("n_timesteps", None)
    seen: Any = env
    if (workers := getattr(env.unwrapped, "workers", 1)) > 1:
        from stable_baselines3.common.vec_env import VecMonitor

        from lfgcl_env.zoo.vec_env import TogetherVecEnv

        seen = VecMonitor(TogetherVecEnv(env))  # as Stable-Baselines3 does with one environment
        # As many updates for every strategy, or strategies for every update, as with one worker.
        if chosen.get("gradient_steps", -1) > 0:
            chosen["gradient_steps"] *= workers
        if "n_steps" in chosen:
            chosen["n_steps"] = max(1, chosen["n_steps"] // workers)
    chosen.setdefault("device", "cpu")  # networks this small are faster there
    return kind(env=seen, seed=seed, **chosen)


def check_installed(algorithm: str) -> None:
    """Check that the package of an algorithm is installed.

    Raises:
        ValueError: for an unknown algorithm.
        ImportError: if its package is missing; names the extra to install.
    """
    package = CLASSES[check_choice(algorithm, ALGORITHMS, "algorithm")].partition(".")[0]
    if find_spec(package) is None:
        name = {"stable_baselines3": "Stable-Baselines3", "sb3_contrib": "sb3-contrib"}[package]
        raise ImportError(f"agent {algorithm} needs {name}: run `pip install lfgcl-env[sb3]`")


def _import_name(name: str) -> Any:
    """Import ``"module.name"``; rl_zoo3's ``get_class_by_name``."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _read(text: str) -> dict[str, Any]:
    """Read ``policy_kwargs`` written as Python, which rl_zoo3 evaluates, without running it."""
    try:
        return dict(_value(ast.parse(text, mode="eval").body))
    except (SyntaxError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise ValueError(
            f"policy_kwargs {short(text)} cannot be read: write dict(NAME=VALUE, ...) with plain "
            "values, nn.NAME and get_class_by_name('module.Class')"
        ) from error


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=given):
            return {argument.arg: _value(argument.value) for argument in given if argument.arg}
        case ast.Call(
            func=ast.Name(id="get_class_by_name"), args=[ast.Constant(value=str(name))], keywords=[]
        ):
            return _import_name(name)
        case ast.Attribute(value=ast.Name(id="nn"), attr=name):
            return getattr(torch.nn, name)
    return ast.literal_eval(node)


def _wrap(env: gym.Env[Any, Any], wrapper: str | dict[str, dict[str, Any]]) -> gym.Env[Any, Any]:
    """Apply a wrapper given as ``"module.Class"`` or ``{"module.Class": arguments}``."""
    ((name, arguments),) = ({wrapper: {}} if isinstance(wrapper, str) else wrapper).items()
    wrapped: gym.Env[Any, Any] = _import_name(name)(env, **arguments)
    return wrapped


def _normal_noise(env: gym.Env[Any, Any], std: float) -> Any:
    from stable_baselines3.common.noise import NormalActionNoise

    assert env.action_space.shape is not None
    zeros = np.zeros(env.action_space.shape)
    return NormalActionNoise(mean=zeros, sigma=np.full_like(zeros, std))
