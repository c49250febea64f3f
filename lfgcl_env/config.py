"""Every argument once: its type, default, unit, line of help and check.

The environments' and :class:`~lfgcl_env.pruning.PruningProblem`'s keyword arguments, the command's
options, the run folder's record, the leaderboard's fields and the documentation's tables are made
from the classes here. To add an argument, add a line here and use it where it matters.

The classes are ``TypedDict``, so that ``**config: Unpack[ProblemConfig]`` gives a signature that
editors and type checkers read, and ``config["budget"]`` its type.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypedDict, TypeVar, cast, get_args, get_type_hints

from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.schema import check_names, check_value, short
from lfgcl_env.networks.baseline import Baseline

Natural = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
Fraction = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True)
class Option:
    """What is known of an argument besides its name and type.

    Attributes:
        default: its value where it is not given.
        help: one line for tables and ``--help``, without the default.
        accepts: ends the sentence "NAME must be ..." of a refusal.
        unit: in brackets behind the help; ``""`` for none.
        decides: whether it decides what a strategy scores. Such arguments are recorded with every
            score, may not differ when a run goes on, and are a leaderboard entry's problem.
        command: whether ``lfgcl`` has an option for it.
    """

    default: Any
    help: str
    accepts: str
    unit: str = ""
    decides: bool = True
    command: bool = True


class ProblemConfig(TypedDict, total=False):
    """What decides a problem besides its network and images."""

    budget: Annotated[
        float | Sequence[float],
        Option(
            0.5,
            "what may remain of the baseline's cost, or a range (low, high) of it",
            "a number above 0 and at most 1, or a range (low, high) of such",
            unit="fraction",
        ),
    ]
    budget_metric: Annotated[str, Option("macs", "what the budget counts", "a name")]
    criterion: Annotated[str, Option("obs", "which channels go first", "a name")]
    repair: Annotated[
        str, Option("least_squares", "how a cut network is repaired before it is scored", "a name")
    ]
    similarity: Annotated[str, Option("discounted_mse", "how features are compared", "a name")]
    features: Annotated[
        str | Sequence[str] | None,
        Option(
            None,
            "modules whose outputs are compared; None: the classifier's input",
            "names of modules, or None",
        ),
    ]
    scope: Annotated[
        str, Option("inner", "'all' also prunes channels that additions couple", "a name")
    ]
    round_to: Annotated[
        Positive,
        Option(
            1,
            "kept counts are multiples of it, or the whole group",
            "a whole number of at least 1",
            unit="channels",
        ),
    ]
    min_channels: Annotated[
        Positive,
        Option(
            1,
            "fewest channels that stay in a group",
            "a whole number of at least 1",
            unit="channels",
        ),
    ]
    seed: Annotated[
        Natural,
        Option(
            0,
            "of the choice of images, and of random weights and orders",
            "a whole number of at least 0",
        ),
    ]
    device: Annotated[
        str, Option("cpu", "where pruned networks are scored", "a name", decides=False)
    ]


class EnvConfig(ProblemConfig, total=False):
    """What an environment is made from."""

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
        str,
        Option(
            "published",
            "'published', 'embedded' (from the package), 'random', or the path of a state dict",
            "a word or a path",
        ),
    ]
    network_arguments: Annotated[
        Mapping[str, Any] | None,
        Option(None, "keyword arguments of the network's builder", "a dictionary, or None"),
    ]
    input_shape: Annotated[
        Sequence[int] | None,
        Option(
            None,
            "(channels, height, width), for networks that do not come with one",
            "three positive whole numbers, or None",
        ),
    ]
    normalization: Annotated[
        Sequence[Sequence[float]] | None,
        Option(
            None,
            "(mean, std) of inputs in [0, 1], for networks that do not come with them",
            "a pair (mean, std) of sequences of numbers, or None",
        ),
    ]
    images: Annotated[
        str | Tensor | NDArray[Any] | None,
        Option(
            None,
            "'CIFAR10', 'CIFAR100', a folder, an image sheet (.png), a tensor or array, 'embedded' "
            "(from the package), 'synthetic' (from the network alone), 'random' (noise); None: "
            "'embedded' for embedded weights, else 'CIFAR10'",
            "a word, a path, a tensor or an array",
        ),
    ]
    num_images: Annotated[
        Positive | None,
        Option(
            256,
            "how many calibration images; None: all",
            "a whole number of at least 1, or None",
            unit="images",
        ),
    ]
    data_root: Annotated[
        str | None,
        Option(
            None,
            "folder of data sets; else LFGCL_DATA, else ~/.cache/lfgcl/data",
            "a path, or None",
            decides=False,
        ),
    ]
    download: Annotated[
        bool, Option(False, "fetch a missing data set", "True or False", decides=False)
    ]
    render_mode: Annotated[
        str | None,
        Option(
            None,
            "'ansi', 'rgb_array' or 'human'",
            "a name, or None",
            decides=False,
            command=False,
        ),
    ]


_Config = TypeVar("_Config", bound=ProblemConfig)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def options(kind: Any) -> dict[str, Option]:
    """Return what is known of every argument of a config class, in the order of declaration.

    >>> options(ProblemConfig)["budget"].default
    0.5
    """
    return {
        name: next(part for part in get_args(hint) if isinstance(part, Option))
        for name, hint in _hints(kind).items()
    }


def defaults(kind: type[Any]) -> dict[str, Any]:
    """Return every argument's default."""
    return {name: option.default for name, option in options(kind).items()}


def complete(kind: type[_Config], given: Mapping[str, Any], what: str) -> _Config:
    """Check arguments, and add the defaults of those that are missing.

    Args:
        kind: a config class.
        given: arguments by name.
        what: is made from them; named in messages.

    Raises:
        ValueError: for an unknown name or a value that is not accepted; one sentence.

    >>> complete(ProblemConfig, {"budget": 0.3}, "the problem")["budget"]
    0.3
    >>> complete(ProblemConfig, {"seed": -1}, "the problem")
    Traceback (most recent call last):
    ...
    ValueError: seed must be a whole number of at least 0, got -1
    >>> complete(ProblemConfig, {"budgets": 0.3}, "the problem")
    Traceback (most recent call last):
    ...
    ValueError: the problem has no argument 'budgets'. Did you mean 'budget'?
    """
    known = options(kind)
    check_names(given, known, what)
    checked, hints = defaults(kind), _hints(cast(Any, kind))
    for name, value in given.items():
        checked[name] = check_value(value, hints[name], name, known[name].accepts)
    return checked  # type: ignore[return-value]


def part(kind: type[_Config], config: Mapping[str, Any]) -> _Config:
    """Return those arguments that a config class declares."""
    return {name: config[name] for name in options(kind) if name in config}  # type: ignore[return-value]


def signature(kind: type[Any], first: Sequence[inspect.Parameter] = ()) -> inspect.Signature:
    """Return a signature that lists every argument and its default, for ``help()`` and editors."""
    hints = get_type_hints(kind)
    keyword = inspect.Parameter.KEYWORD_ONLY
    arguments = [
        inspect.Parameter(name, keyword, default=option.default, annotation=hints[name])
        for name, option in options(kind).items()
    ]
    return inspect.Signature([*first, *arguments])


def table(kind: type[Any], only: Sequence[str] | None = None) -> str:
    """Return a table of arguments in Markdown."""
    lines = ["| argument | default | meaning |", "|---|---|---|"]
    for name, option in options(kind).items():
        if only is None or name in only:
            unit = f" [{option.unit}]" if option.unit else ""
            lines.append(f"| `{name}` | `{short(option.default)}` | {option.help}{unit} |")
    return "\n".join(lines)
