"""Every argument once: its type, default, unit, line of help and check.

The environments' and :class:`~lfgcl_env.pruning.PruningProblem`'s keyword arguments, the command's
options, the run folder's record, the leaderboard's fields and the documentation's tables are made
from the classes here. To add an argument, add a line here and use it where it matters.

The classes are ``TypedDict``, so that ``**config: Unpack[ProblemConfig]`` gives a signature that
editors and type checkers read, and ``config["budget"]`` its type.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypedDict

from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.arguments import (
    Option,
    complete,
    defaults,
    documented,
    options,
    part,
    signature,
    table,
)
from lfgcl_env.edge.bounds import POSITIVE, Positive, Seed
from lfgcl_env.edge.executors import Submits
from lfgcl_env.edge.patterns import check_limit, check_patterns
from lfgcl_env.edge.value_checks import (
    check_budget,
    check_cluster,
    check_device,
    check_optional_shape,
    check_resources,
)
from lfgcl_env.images.labelled import LabelledImages
from lfgcl_env.networks.baseline import Baseline
from lfgcl_env.networks.normalization import Normalization

__all__ = [
    "BudgetConfig",
    "EngineConfig",
    "EnvConfig",
    "Fraction",
    "GlobalConfig",
    "LatencyConfig",
    "LayerwiseConfig",
    "Natural",
    "Option",
    "ProblemConfig",
    "Reward",
    "RewardedConfig",
    "StructureConfig",
    "complete",
    "defaults",
    "documented",
    "options",
    "part",
    "signature",
    "table",
]

Natural = Seed
Fraction = Annotated[float, Gt(0), Le(1)]
Channels = Annotated[int, Ge(0), Le(10**6)]
Ratios = Fraction | Mapping[str, Fraction] | Sequence[Sequence[str | float]]
Names = str | Sequence[str]
Path = str | os.PathLike[str]
Reward = str | Callable[[nn.Module, Tensor], float]

NATURAL = "a whole number from 0 to 4,294,967,295"
CHANNELS = "a whole number from 0 to 1,000,000"
FRACTION = "a number above 0 and at most 1"
BY_MODULE = "by patterns of layers too, the first match counts, as in {'layer1.*': %s, '*': %s}"
REWARD = (
    "'similarity' to the baseline, 'accuracy' on labelled images, 'module:function' or a function "
    "of your own: (network, images) -> float, higher is better"
)


def _ratio_option(default: float) -> Option:
    name = "max_prune_ratio"
    return Option(
        default,
        "most that is pruned of any group; AMC environments have 0.8, their `a_max`; "
        f"{BY_MODULE % (0.3, 0.9)}",
        f"{FRACTION}, or a mapping of patterns to such numbers",
        check=partial(check_limit, kind=Fraction, what=name, accepts=FRACTION, rest=default),
        several=True,
    )


class BudgetConfig(TypedDict, total=False):
    """What a pruned network may cost."""

    budget: Annotated[
        Fraction | Sequence[Fraction],
        Option(
            0.5,
            "fraction of the baseline's cost that may remain, or a range (low, high)",
            "a number above 0 and at most 1, or a range (low, high) of such numbers",
            check=check_budget,
        ),
    ]
    budget_metric: Annotated[str, Option("macs", "what the budget counts", "a name")]


class LatencyConfig(TypedDict, total=False):
    """Whose time a budget of latency counts; nothing to other budgets."""

    latency_runtime: Annotated[
        str,
        Option(
            "pytorch",
            "for budget_metric 'latency': where networks will run",
            "a name",
        ),
    ]
    latency_batch: Annotated[
        Positive,
        Option(1, "likewise: images of a forward pass", POSITIVE, unit="images"),
    ]
    latency_threads: Annotated[Positive, Option(1, "likewise: threads that compute", POSITIVE)]
    latency_table: Annotated[
        Path | None,
        Option(
            None,
            "likewise: a table of times, by its path or checksum; None: that of this machine, "
            "measured when it is first needed and kept in LFGCL_LATENCY, else "
            "~/.cache/lfgcl/latency",
            "a path, a checksum, or None",
            word="PATH or CHECKSUM",
        ),
    ]


class StructureConfig(TypedDict, total=False):
    """Which groups of channels are pruned, and how far: what needs no images."""

    scope: Annotated[
        str, Option("inner", "'all' also prunes channels that additions couple", "a name")
    ]
    protect: Annotated[
        Names,
        Option(
            (),
            "modules whose layers keep their shapes: names or patterns such as 'layer1.*'; a "
            "module's name stands for all inside it",
            "a module's name, a pattern, or several",
            check=check_patterns,
            several=True,
        ),
    ]
    round_to: Annotated[
        Positive | Mapping[str, Positive] | Sequence[Sequence[str | int]],
        Option(
            1,
            f"kept counts are multiples of it, or the whole group; {BY_MODULE % (4, 8)}",
            f"{POSITIVE}, or a mapping of patterns to such numbers",
            unit="channels",
            check=partial(check_limit, kind=Positive, what="round_to", accepts=POSITIVE, rest=1),
            several=True,
        ),
    ]
    min_channels: Annotated[
        Channels | Mapping[str, Channels] | Sequence[Sequence[str | int]],
        Option(
            1,
            "fewest channels that stay in a group; 0: a whole block may go where a shortcut leads "
            f"around it; {BY_MODULE % (4, 1)}",
            f"{CHANNELS}, or a mapping of patterns to such numbers",
            unit="channels",
            check=partial(
                check_limit, kind=Channels, what="min_channels", accepts=CHANNELS, rest=1
            ),
            several=True,
        ),
    ]
    max_prune_ratio: Annotated[Ratios, _ratio_option(1.0)]


class ProblemConfig(BudgetConfig, LatencyConfig, StructureConfig, total=False):
    """Arguments of a problem besides its network and images."""

    criterion: Annotated[str, Option("obs", "the order in which channels are removed", "a name")]
    repair: Annotated[
        str,
        Option(
            "least_squares",
            "how a pruned network is repaired before it is scored; LFGCL ids of a network have "
            "'sequential'",
            "a name",
        ),
    ]
    similarity: Annotated[
        str | None,
        Option(
            None,
            "how networks are compared; None: what ranks best after the repair, kl after "
            "sequential and discounted_mse after any other, or of features that are given",
            "a name, or None",
        ),
    ]
    features: Annotated[
        str | Sequence[str] | None,
        Option(
            None,
            "modules whose outputs are compared; 'output': the network's; None: the inputs of the "
            "layers that feed the network's outputs, such as its classifier",
            "names of modules, or None",
        ),
    ]
    seed: Annotated[
        Natural,
        Option(
            0,
            "seed of the choice of images, and of random weights and orders",
            NATURAL,
        ),
    ]
    device: Annotated[
        str,
        Option(
            "cpu",
            "the device that computes, such as 'cuda'",
            "a name",
            decides=False,
            check=check_device,
        ),
    ]


class EngineConfig(TypedDict, total=False):
    """Where strategies are scored; it changes no score."""

    workers: Annotated[
        Positive,
        Option(
            1,
            "workers that score strategies, one thread each; a search proposes as many strategies "
            "at a time, so that the same number finds the same",
            POSITIVE,
            decides=False,
        ),
    ]
    engine: Annotated[
        str | Submits | None,
        Option(
            None,
            "where they work: 'serial' (in this process), 'processes' (on this machine), 'ray' (on "
            "the machines of a Ray cluster), or an executor of your own; None: ray where "
            "ray_address or ray_resources is given, processes where there are several",
            "a name, an executor (what has `submit`, as those of concurrent.futures), or None",
            decides=False,
            command_help="where they work: 'serial' (in this process), 'processes' (on this "
            "machine) or 'ray' (on the machines of a Ray cluster); if not given: ray with "
            "--ray-address or --ray-resources, processes where there are several",
        ),
    ]
    ray_address: Annotated[
        str | None,
        Option(
            None,
            "for engine 'ray': a cluster, 'auto' (the one of this machine), 'HOST:6379' or "
            "'ray://HOST:10001'; None: RAY_ADDRESS, else this machine alone",
            "an address, or None",
            decides=False,
            word="ADDRESS",
            check=check_cluster,
        ),
    ]
    ray_resources: Annotated[
        Mapping[str, Any] | None,
        Option(
            None,
            "likewise: what every worker takes of its machine, as in CPU=1,GPU=0.25; None: a CPU",
            "a mapping of names to numbers of at least 0, as in {'CPU': 1, 'GPU': 0.25}, or None",
            decides=False,
            check=check_resources,
        ),
    ]


class EnvConfig(ProblemConfig, EngineConfig, total=False):
    """Arguments of a problem, its network and its images."""

    network: Annotated[
        str | nn.Module | Baseline | Callable[..., nn.Module],
        Option(
            "resnet56",
            "name, 'torchvision:NAME', 'package.module:function', or a module",
            "a name, a torch.nn.Module, or a function that returns one",
            command=False,
        ),
    ]
    weights: Annotated[
        Path,
        Option(
            "published",
            "'published', 'embedded' (from the package), 'random', or the path of a state dict",
            "a word or a path",
            word="NAME or PATH",
        ),
    ]
    network_arguments: Annotated[
        Mapping[str, Any] | None,
        Option(None, "keyword arguments of the network's builder", "a dictionary, or None"),
    ]
    input_shape: Annotated[
        Sequence[Positive] | None,
        Option(
            None,
            "shape of one input, such as (channels, height, width), for networks that do not come "
            "with one; None: that of a tensor or array of images, else (3, 32, 32)",
            "1 to 4 positive whole numbers, or None",
            command_help="shape of one input, for networks that do not come with one; one number "
            "is the side of a square image with three channels, as in 64; if not given: 3,32,32",
            check=check_optional_shape,
        ),
    ]
    normalization: Annotated[
        Normalization | Sequence[Sequence[float]] | None,
        Option(
            None,
            "(mean, std) of inputs in [0, 1], for networks that do not come with them",
            "a pair (mean, std) of sequences of numbers, or None",
        ),
    ]
    images: Annotated[
        Path | Tensor | NDArray[Any] | tuple[Any, ...] | list[Any] | Mapping[str, Any] | None,
        Option(
            None,
            "'CIFAR10', 'CIFAR100', a folder, an image sheet (.png), a tensor or array, a tuple or "
            "dictionary of several inputs, 'embedded' (from the package), 'synthetic' (from the "
            "network alone), 'random' (noise); None: 'embedded' for embedded weights, else the "
            "data set of the network's classes, or 'CIFAR10'",
            "a word, a path, a tensor or an array, or several of these in a tuple or dictionary",
            word="NAME or PATH",
            command_help="'CIFAR10', 'CIFAR100', a folder, an image sheet (.png), 'embedded' "
            "(from the package), 'synthetic' (from the network alone), 'random' (noise), or one "
            "of these for each of several inputs by its name; if not given: 'embedded' for "
            "embedded weights, else the data set of the network's classes, or 'CIFAR10'",
        ),
    ]
    num_images: Annotated[
        Positive | None,
        Option(
            256,
            "number of calibration images; None: as many as there are",
            f"{POSITIVE}, or None",
            unit="images",
        ),
    ]
    num_score_images: Annotated[
        Natural | None,
        Option(
            None,
            "number of other images that pruned networks are scored on, views of the calibration "
            "images where there are not so many; 0: the calibration images; None: four for each "
            "of these after sequential repair, else 0",
            f"{NATURAL}, or None",
            unit="images",
        ),
    ]
    data_root: Annotated[
        Path | None,
        Option(
            None,
            "folder of data sets; else LFGCL_DATA, else ~/.cache/lfgcl/data",
            "a path, or None",
            decides=False,
            word="FOLDER",
        ),
    ]
    download: Annotated[
        bool, Option(False, "download a missing data set", "True or False", decides=False)
    ]
    render_mode: Annotated[
        str | None,
        Option(
            None,
            "'ansi', 'rgb_array' or 'human'; None: render() does nothing",
            "a name, or None",
            decides=False,
            command=False,
        ),
    ]


class RewardedConfig(EnvConfig, total=False):
    """Arguments of every environment; which reward is the default, each environment says."""

    num_labelled: Annotated[
        Positive,
        Option(
            5000,
            "for reward 'accuracy': labelled training images that are no calibration images",
            POSITIVE,
            unit="images",
        ),
    ]
    labelled: Annotated[
        LabelledImages | None,
        Option(
            None,
            "for reward 'accuracy': `lfgcl_env.images.LabelledImages` instead of training images",
            "lfgcl_env.images.LabelledImages, or None",
            command=False,
        ),
    ]


class GlobalConfig(RewardedConfig, total=False):
    """Arguments of the global environment, ``LFGCLEnv``."""

    reward: Annotated[Reward, Option("similarity", REWARD, "a name or a function")]
    horizon: Annotated[Positive, Option(1, "steps of an episode", POSITIVE)]


class LayerwiseConfig(RewardedConfig, total=False):
    """Arguments of the layerwise environment, ``AMCEnv``."""

    reward: Annotated[Reward, Option("accuracy", REWARD, "a name or a function")]
    max_prune_ratio: Annotated[Ratios, _ratio_option(0.8)]  # type: ignore[misc]  # AMC's `a_max`
    spend_budget: Annotated[
        bool,
        Option(
            False,
            "whether actions are also bounded from below, so that the budget is spent",
            "True or False",
        ),
    ]
