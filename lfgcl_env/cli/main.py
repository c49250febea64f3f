"""The command ``lfgcl``: prune, evaluate, inspect, synthesize, validate, list."""

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import gymnasium as gym

from lfgcl_env import __version__
from lfgcl_env.cli.evaluate import evaluate
from lfgcl_env.cli.inspect import show_network
from lfgcl_env.cli.list import show_names
from lfgcl_env.cli.options import DEFAULTS, ENV_OPTIONS, SEARCH_OPTIONS, budget, natural, positive
from lfgcl_env.cli.prune import prune
from lfgcl_env.cli.synthesize import synthesize
from lfgcl_env.cli.validate import validate
from lfgcl_env.images.synthetic import RECIPE
from lfgcl_env.search.protocol import AgentError

EXPECTED = (ValueError, OSError, ImportError, gym.error.Error)
"""What bad input raises: told in one sentence. Everything else is a defect, and is shown whole."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; ``sys.argv``'s by default.

    Returns:
        0; 1 if an agent raised, 2 for bad input, 130 if interrupted.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for 'module:factory' and 'package.module:function'
    try:
        parsed = vars(_parser().parse_args(arguments))
        command = parsed.pop("command")
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            command(parsed)
    except KeyboardInterrupt as interrupt:
        print(f"lfgcl: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except AgentError as error:
        if error.__cause__:
            traceback.print_exception(error.__cause__)
        print(f"lfgcl: error: {error}", file=sys.stderr)
        return 1
    except EXPECTED as error:
        print(f"lfgcl: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"lfgcl: error: {message} (see `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lfgcl",
        description="Prune a trained network without labels, by reinforcement learning.",
    )
    parser.add_argument("--version", action="version", version=f"lfgcl {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_prune(verbs)
    _add_evaluate(verbs)
    _add_inspect(verbs)
    _add_synthesize(verbs)
    _add_validate(verbs)
    listed = verbs.add_parser("list", help="list environments, networks and agents")
    listed.set_defaults(command=show_names)
    return parser


def _add_prune(verbs: Any) -> None:
    """``lfgcl prune``: options that are not given are absent, so that a resumed run has its own."""
    command = verbs.add_parser(
        "prune",
        help="search for the best pruned network and write it to a run folder",
        argument_default=argparse.SUPPRESS,
    )
    command.add_argument(
        "target",
        nargs="?",
        metavar="ENV_OR_NETWORK",
        help="such as LFGCL-ResNet56-v0, resnet56, torchvision:resnet18, package.module:function",
    )
    command.add_argument("--out", metavar="FOLDER", required=True, help="the run folder to write")
    for name, (kind, text) in {**SEARCH_OPTIONS, **ENV_OPTIONS}.items():
        default = DEFAULTS[name]
        _add(command, name, kind, f"{text} ({default})" if default is not None else text)
    _add_input_size(command)
    command.add_argument(
        "--init-from",
        metavar="RUN",
        help="a finished run of the same agent, on this or another network: begin with what the "
        "agent learnt there. The first strategy scored is what it predicts before it learns "
        "anything here: --evaluations 1 --shortlist 1 repairs that and nothing else. Agents of "
        "Stable-Baselines3 carry over between networks with as many groups and no others",
    )
    command.add_argument("--download", action="store_true", help="fetch a missing data set")
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in the folder; its arguments need not be repeated",
    )
    command.add_argument("--wandb", action="store_true", help="log to Weights & Biases too")
    command.set_defaults(command=prune)


def _add_evaluate(verbs: Any) -> None:
    command = verbs.add_parser(
        "evaluate", help="report the top-1 accuracy of pruned networks and of their baseline"
    )
    command.add_argument("run", metavar="RUN_OR_FILE", help="a run folder, or a .safetensors file")
    command.add_argument("--data", required=True, help="labelled test set: CIFAR10 or CIFAR100")
    _add_test(command)
    command.set_defaults(command=evaluate)


def _add_inspect(verbs: Any) -> None:
    command = verbs.add_parser(
        "inspect", help="list a network's groups of channels, its cost, and what cannot be pruned"
    )
    _add_network(command)
    command.add_argument("--scope", default="inner", help=f"{ENV_OPTIONS['scope'][1]} (inner)")
    command.set_defaults(command=show_network)


def _add_synthesize(verbs: Any) -> None:
    command = verbs.add_parser(
        "synthesize",
        help="make calibration images from a network alone and write them as an image sheet",
        description="Make calibration images from a network alone, so that they have the BatchNorm "
        "statistics of its training images. If it is interrupted, the same command goes on.",
    )
    _add_network(command)
    command.add_argument("--count", type=positive, default=256, metavar="N", help="images (256)")
    command.add_argument("--out", metavar="FILE", required=True, help="the image sheet, a .png")
    command.add_argument(
        "--steps",
        type=positive,
        default=RECIPE.steps,
        metavar="N",
        help=f"of the optimiser, for every {RECIPE.batch} images ({RECIPE.steps})",
    )
    command.add_argument("--seed", type=natural, default=0, metavar="N", help="of the images (0)")
    command.add_argument("--device", default="cpu", help="where to compute (cpu)")
    command.add_argument("--threads", type=positive, default=1, metavar="N", help="of PyTorch (1)")
    command.set_defaults(command=synthesize)


def _add_validate(verbs: Any) -> None:
    command = verbs.add_parser(
        "validate",
        help="replay a leaderboard's entries and say whether what they claim holds",
        description="Prune anew as every entry of a leaderboard says, and measure MACs, similarity "
        "and, where the test images are at hand, top-1. Ends with an error that names the entries "
        "that do not hold. The file's form is described in lfgcl_env.leaderboard.",
    )
    command.add_argument("leaderboard", metavar="FILE", help="JSON Lines, one entry a line")
    command.add_argument(
        "--add",
        action="append",
        metavar="RUN",
        help="instead replay what was kept in a run folder, and add it if it holds",
    )
    command.add_argument("--author", default="anonymous", help="who adds it (anonymous)")
    _add_test(command)
    command.set_defaults(command=validate)


def _add_test(parser: argparse.ArgumentParser) -> None:
    """Where test images are, and where to compute."""
    parser.add_argument("--data-root", metavar="FOLDER", help=ENV_OPTIONS["data_root"][1])
    parser.add_argument("--download", action="store_true", help="fetch a missing data set")
    parser.add_argument("--device", default="cpu", help="where to compute (cpu)")


def _add_network(parser: argparse.ArgumentParser) -> None:
    """A network besides environments, see :func:`lfgcl_env.cli.targets.load_network`."""
    parser.add_argument("network", metavar="ENV_OR_NETWORK", help="as for prune")
    parser.add_argument("--weights", help=ENV_OPTIONS["weights"][1])
    _add_input_size(parser)


def _add(parser: argparse.ArgumentParser, name: str, kind: Any, text: str) -> None:
    metavar = {str: "NAME", budget: "X"}.get(kind, "N")
    text = text.replace("%", "%%")
    parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=text)


def _add_input_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-size",
        type=_input_size,
        metavar="C,H,W",
        dest="input_shape",
        help="of one input: channels, height, width; or one number for 3 channels of that side",
    )
    parser.add_argument(
        "--normalization",
        type=_normalization,
        metavar="M,M,M/S,S,S",
        help="mean and standard deviation of inputs in [0, 1], for networks that come without",
    )


def _normalization(text: str) -> list[list[float]]:
    try:
        mean, std = ([float(part) for part in half.split(",")] for half in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not means and standard deviations, such as 0.5,0.5,0.5/0.2,0.2,0.2"
        ) from None
    return [mean, std]


def _input_size(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is neither three whole numbers nor one")
    sizes = [int(part) for part in parts]
    return sizes if len(sizes) == 3 else [3, sizes[0], sizes[0]]


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"lfgcl: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
