"""What is tuned: the settings of every algorithm, as a trial of optuna proposes them."""

from collections.abc import Callable
from typing import Any

import optuna

Settings = dict[str, Any]
"""Arguments of an algorithm, as in a file of lfgcl_env/zoo/hyperparams."""

LAYERWISE = "features_extractor_class=get_class_by_name('lfgcl_env.zoo.LayerwiseExtractor')"


def actions(trial: optuna.Trial) -> Settings:
    """Propose how actions become prune ratios: straight, or as logits within +-scale."""
    scale = trial.suggest_categorical("logit_scale", [0.0, 1.0, 2.0, 3.0])
    straight = {"gymnasium.wrappers.RescaleAction": {"min_action": -1, "max_action": 1}}
    logits = {"lfgcl_env.zoo.LogitAction": {"scale": scale}}
    flat = "gymnasium.wrappers.FlattenObservation"
    return {"env_wrapper": [flat, logits if scale else straight]}


def networks(trial: optuna.Trial, **arguments: Any) -> Settings:
    """Propose the width of both layers of actor and critic, and the features extractor."""
    width = trial.suggest_categorical("net_width", [64, 128, 300])
    given = [f"net_arch=[{width}, {width}]", *(f"{key}={arguments[key]}" for key in arguments)]
    if trial.suggest_categorical("extractor", ["flat", "layerwise"]) == "layerwise":
        given.append(LAYERWISE)
    return {"policy_kwargs": f"dict({', '.join(given)})"}


def off_policy(trial: optuna.Trial) -> Settings:
    """Propose what all algorithms with a replay buffer share."""
    return {
        "learning_starts": trial.suggest_categorical("learning_starts", [5, 10, 20, 40]),
        "gradient_steps": trial.suggest_categorical("gradient_steps", [5, 10, 20]),
        "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 2e-3, log=True),
    }


def deterministic(trial: optuna.Trial) -> Settings:
    """Propose settings of DDPG and TD3: constant noise around the actor's action."""
    noise = trial.suggest_float("noise_std", 0.05, 0.4, log=True)
    return {**off_policy(trial), **networks(trial), "noise_std": noise}


def stochastic(trial: optuna.Trial) -> Settings:
    """Propose settings of SAC, TQC and CrossQ: the policy's spread, narrow at first with gSDE."""
    sde = trial.suggest_categorical("use_sde", [False, True])
    spread = {"log_std_init": trial.suggest_float("log_std_init", -4, -1)} if sde else {}
    return {
        **off_policy(trial),
        **networks(trial, **spread),
        "use_sde": sde,
        "ent_coef": trial.suggest_categorical("ent_coef", ["auto_0.01", 1e-4, 1e-3, 1e-2]),
    }


def on_policy(trial: optuna.Trial) -> Settings:
    """Propose settings of PPO."""
    steps = trial.suggest_categorical("n_steps", [8, 16, 32])
    return {
        "n_steps": steps,
        "batch_size": steps,
        "n_epochs": trial.suggest_categorical("n_epochs", [5, 10, 20]),
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
        **networks(trial, log_std_init=trial.suggest_float("log_std_init", -2.5, -0.5)),
    }


SPACES: dict[str, Callable[[optuna.Trial], Settings]] = {
    "ddpg": deterministic,
    "td3": deterministic,
    "sac": stochastic,
    "tqc": stochastic,
    "crossq": stochastic,
    "ppo": on_policy,
}
"""What proposes the settings of an algorithm, by its name."""
