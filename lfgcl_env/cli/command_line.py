"""The command line: what ``lfgcl`` and its commands accept."""

import argparse
from typing import Any

from lfgcl_env import __version__
from lfgcl_env.cli.completion import PrintCompletion
from lfgcl_env.cli.evaluate import evaluate
from lfgcl_env.cli.export import export
from lfgcl_env.cli.inspect import show_network
from lfgcl_env.cli.list import show_names
from lfgcl_env.cli.measure import measure
from lfgcl_env.cli.options import add_options, positive
from lfgcl_env.cli.parser import Parser, add_common
from lfgcl_env.cli.prune import prune
from lfgcl_env.cli.recover import recover_network
from lfgcl_env.cli.recovery_arguments import add_recovery_options
from lfgcl_env.cli.report_run import report_run
from lfgcl_env.cli.synthesize import synthesize
from lfgcl_env.cli.validate import validate
from lfgcl_env.config import EnvConfig, GlobalConfig, LayerwiseConfig, StructureConfig, options
from lfgcl_env.export import CALIBRATIONS, FORMATS
from lfgcl_env.export.export_network import INPUT
from lfgcl_env.export.onnx_model import OPSET
from lfgcl_env.images.calibration import DEFAULT_COUNT
from lfgcl_env.images.datasets import DATASETS
from lfgcl_env.images.synthetic import RECIPE
from lfgcl_env.latency.runtimes import RUNTIMES
from lfgcl_env.page import PAGE
from lfgcl_env.search.search_config import SearchConfig

_DATA = ("data_root", "download", "device")
_NETWORK = ("weights", "network_arguments", "input_shape", "normalization")


def command_line() -> Parser:
    """Return the parser; what it parses holds the ``command`` to call with all the rest.

    A command is a function of its arguments that prints for people and returns an
    :data:`~lfgcl_env.cli.outcome.Outcome`; ``writes`` says that its files are its result, so that
    what it prints may be lost.
    """
    parser = Parser(
        prog="lfgcl",
        description="Prune a trained network without labels, by reinforcement learning.",
        examples=(
            "lfgcl prune LFGCL-ResNet56-v0 --agent lfgcl --evaluations 4 --out runs/r56",
            "lfgcl report runs/r56",
        ),
    )
    parser.add_argument("--version", action="version", version=f"lfgcl {__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        default=argparse.SUPPRESS,
        help="print a script that completes this command in bash, zsh or tcsh",
    )
    add_common(parser)
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        *(_add_prune, _add_report, _add_evaluate, _add_recover, _add_measure, _add_export),
        *(_add_inspect, _add_synthesize, _add_validate, _add_list),
    ):
        add_common(add(verbs))
    return parser


def _add_prune(verbs: Any) -> argparse.ArgumentParser:
    """Add ``lfgcl prune``; its options that are not given are absent from what is parsed."""
    command: argparse.ArgumentParser = verbs.add_parser(
        "prune",
        examples=(
            "lfgcl prune LFGCL-ResNet56-v0 --agent lfgcl --evaluations 4 --out runs/r56",
            "lfgcl prune torchvision:resnet18 --images photos/ --budget 0.6 --out runs/r18",
            "lfgcl prune --resume --out runs/r56",
        ),
        help="search for the best pruned network and write it to a run folder",
        description="Search with an agent for the channels that each layer keeps within the "
        "budget, repair the best network, and write it with all that was found to a run folder. "
        "After Ctrl-C or a crash, --resume goes on.",
        epilog="Defaults are in brackets; an environment's id has weights of its own, see "
        "`lfgcl list`.",
    )
    command.add_argument(
        "target",
        nargs="?",
        default=argparse.SUPPRESS,
        metavar="ENV_OR_NETWORK",
        help="such as LFGCL-ResNet56-v0, resnet56, torchvision:resnet18, package.module:function",
    )
    command.add_argument("--out", metavar="FOLDER", required=True, help="the run folder to write")
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in the folder; its arguments need not be repeated",
    )
    command.add_argument(
        "--trust",
        action="store_true",
        help="with --resume: import the network, agent or reward that the run names as "
        "module:function. That runs their code, and is refused for names that are not given again",
    )
    command.add_argument("--wandb", action="store_true", help="log to Weights & Biases too")
    add_options(command.add_argument_group("search"), SearchConfig, given_only=True)
    kinds = (GlobalConfig, LayerwiseConfig)
    add_options(command.add_argument_group("environment"), kinds, given_only=True)
    command.set_defaults(command=prune, writes=True)
    return command


def _add_report(verbs: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = verbs.add_parser(
        "report",
        examples=(
            "lfgcl report runs/r56",
            "lfgcl report runs/r56 --out page.html",
        ),
        help="write a run, finished or not, as one HTML file to look at",
        description="Write what a run folder knows as one HTML file that needs nothing else: what "
        "was pruned, the result, the search, the channels of every layer, and times, accuracy, "
        "recoveries and exports as far as there are any. No code of the run is executed.",
    )
    command.add_argument("run", metavar="RUN", help="a run folder")
    command.add_argument("--out", metavar="FILE", help=f"the file to write ({PAGE} in the folder)")
    command.set_defaults(command=report_run, writes=True)
    return command


def _add_evaluate(verbs: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = verbs.add_parser(
        "evaluate",
        examples=(
            "lfgcl evaluate runs/r56 --data CIFAR10 --download",
            "lfgcl evaluate runs/r56/pruned.safetensors --data CIFAR10 --json",
        ),
        help="report the costs and the top-1 accuracy of pruned networks",
        description="Test the pruned networks of a run, or one of a file, and their baseline on "
        "a labelled test set, and print top-1 [%%], MACs and parameters.",
    )
    _add_run(command)
    command.add_argument(
        "--data",
        help=f"labelled test set: {' or '.join(DATASETS)}; needed where one fits the network",
    )
    add_options(command, EnvConfig, only=_DATA)
    command.set_defaults(command=evaluate)
    return command


def _add_recover(verbs: Any) -> argparse.ArgumentParser:
    """Add ``lfgcl recover``; options of images that are not given are those of the run."""
    command: argparse.ArgumentParser = verbs.add_parser(
        "recover",
        examples=(
            "lfgcl recover runs/r56",
            "lfgcl recover runs/r56 --images CIFAR10 --epochs 5",
        ),
        help="train a pruned network on its baseline's outputs, without labels",
        description="Train the pruned network of a run or file to give its baseline's outputs on "
        "unlabelled images, and write the better one of before and after. Ctrl-C keeps a "
        "checkpoint, from which the same command goes on.",
    )
    _add_run(command)
    command.add_argument(
        "--output",
        metavar="FILE",
        help="the file to write (recovered.safetensors beside the other)",
    )
    command.add_argument(
        "--reward",
        metavar="NAME",
        help="by which the better one of before and after is found: similarity (of outputs), "
        "accuracy, or your own module:function (that of the run)",
    )
    command.add_argument(
        "--labels",
        action="store_true",
        help="train on the labels of the data set instead, to compare with what others publish",
    )
    command.add_argument("--wandb", action="store_true", help="log to Weights & Biases too")
    add_recovery_options(command.add_argument_group("training"))
    images = command.add_argument_group("images")
    add_options(images, EnvConfig, only=("images",), given_only=True)
    images.add_argument(
        "--num-images", type=positive, metavar="N", help="to take, one of eight to watch (all)"
    )
    add_options(images, EnvConfig, only=_DATA)
    command.set_defaults(command=recover_network, writes=True)
    return command


def _add_export(verbs: Any) -> argparse.ArgumentParser:
    """Add ``lfgcl export``; options of a network and of images are absent if they are not given."""
    command: argparse.ArgumentParser = verbs.add_parser(
        "export",
        examples=(
            "lfgcl export runs/r56",
            "lfgcl export runs/r56 --format pt2 --output r56.pt2",
            "lfgcl export runs/r56 --int8 --data CIFAR10",
        ),
        help="write a pruned network as ONNX, pt2 or TorchScript, in float or int8",
        description="Write the pruned network of a run or file, or a whole network by its name, as "
        "a file that runs without this package on any number of images. It is run before it is "
        "written, and refused where its outputs are not PyTorch's to 1e-4 of their largest value.",
    )
    _add_run(command, "a run folder, a .safetensors file, or a network as for prune")
    command.add_argument(
        "--format", choices=list(FORMATS), default="onnx", help="of the file (%(default)s)"
    )
    command.add_argument(
        "--output", metavar="FILE", help="the file to write (pruned.onnx in the run folder)"
    )
    command.add_argument(
        "--opset", type=positive, metavar="N", help=f"of ONNX's operators ({OPSET})"
    )
    command.add_argument(
        "--fold-normalization",
        action="store_true",
        help="take images with values from 0 to 1 and normalise them within the network",
    )
    command.add_argument(
        "--input-name", default=INPUT, metavar="NAME", help="of ONNX's input (%(default)s)"
    )
    command.add_argument(
        "--output-names",
        type=lambda text: text.split(","),
        metavar="NAME,...",
        help="of ONNX's outputs (logits, output, or their places in what the network returns)",
    )
    command.add_argument(
        "--int8",
        action="store_true",
        help="quantise to int8, calibrated on the unlabelled images of the run, and report what "
        "that changes",
    )
    int8 = command.add_argument_group("with --int8")
    add_options(int8, EnvConfig, only=("images", "num_images"), given_only=True)
    int8.add_argument(
        "--calibration",
        choices=("auto", *CALIBRATIONS),
        default="auto",
        help="of activations: by their extremes, by 99.99 %% of their values, or what of both is "
        "nearer to float (%(default)s)",
    )
    int8.add_argument("--data", help=f"labelled test set to report top-1: {' or '.join(DATASETS)}")
    add_options(int8, EnvConfig, only=("data_root", "download"))
    network = command.add_argument_group("with a network's name")
    add_options(
        network, EnvConfig, only=("weights", "input_shape", "normalization"), given_only=True
    )
    command.set_defaults(command=export, writes=True)
    return command


def _add_measure(verbs: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = verbs.add_parser(
        "measure",
        examples=(
            "lfgcl measure runs/r56",
            "lfgcl measure runs/r56 --runtime pytorch --batch 1 8 --threads 2",
        ),
        help="measure time, file size and memory of pruned networks beside their baseline's",
        description="Run the baseline and the pruned networks in turn, so that what else the "
        "machine does slows all of them alike, and print their times, sizes and memory. A run "
        "folder keeps them in measured.json, best.json and report.txt.",
    )
    _add_run(command)
    command.add_argument(
        "--runtime",
        nargs="+",
        choices=list(RUNTIMES),
        help="where to run them (all that are installed)",
    )
    command.add_argument(
        "--batch",
        nargs="+",
        type=positive,
        default=[1, 32],
        metavar="N",
        help="images of a forward pass [images] (1 32)",
    )
    command.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="that compute (%(default)s)"
    )
    command.add_argument(
        "--seconds",
        type=positive,
        default=5,
        metavar="N",
        help="for every network, runtime and batch [s] (%(default)s)",
    )
    command.set_defaults(command=measure)
    return command


def _add_inspect(verbs: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = verbs.add_parser(
        "inspect",
        examples=(
            "lfgcl inspect LFGCL-ResNet56-v0",
            "lfgcl inspect torchvision:resnet18 --weights random --scope all",
        ),
        help="list a network's groups of channels, what each can save, the lowest budgets, the "
        "repairs that work, and what cannot be pruned",
        description="Find the groups of channels of a network that can be pruned, without images "
        "and before any search: what each group can save, the lowest budgets, the repairs that "
        "work, and every layer that stays whole with the reason.",
    )
    _add_network(command)
    kinds = (GlobalConfig, LayerwiseConfig)
    add_options(command, kinds, only=options(StructureConfig), given_only=True)
    command.set_defaults(command=show_network)
    return command


def _add_synthesize(verbs: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = verbs.add_parser(
        "synthesize",
        examples=(
            "lfgcl synthesize resnet32 --out images.png",
            "lfgcl synthesize LFGCL-ResNet20-v0 --count 64 --steps 100 --out few.png",
        ),
        help="make calibration images from a network alone and write them as an image sheet",
        description="Make calibration images from a network alone, so that they have the BatchNorm "
        "statistics of its training images. If it is interrupted, the same command goes on.",
    )
    _add_network(command)
    command.add_argument("--out", metavar="FILE", required=True, help="the image sheet, a .png")
    command.add_argument(
        "--count",
        type=positive,
        default=DEFAULT_COUNT,
        metavar="N",
        help="how many to make [images] (%(default)s)",
    )
    command.add_argument(
        "--steps",
        type=positive,
        default=RECIPE.steps,
        metavar="N",
        help=f"of the optimiser, for every {RECIPE.batch} images (%(default)s)",
    )
    add_options(command, EnvConfig, only=("seed", "device"))
    add_options(command, SearchConfig, only=("threads",))
    command.set_defaults(command=synthesize, writes=True)
    return command


def _add_validate(verbs: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = verbs.add_parser(
        "validate",
        examples=(
            "lfgcl validate benchmarks/leaderboard.jsonl",
            "lfgcl validate mine.jsonl --add runs/r56 --author me",
        ),
        help="replay a leaderboard's entries and check their claims",
        description="Prune anew as every entry of a leaderboard says, and measure MACs, similarity "
        "and, where the test images are at hand, top-1. Ends with an error that names the entries "
        "whose claims fail. The file's form is described in lfgcl_env.leaderboard. Entries name "
        "networks of this package and torchvision only, so that no code of others runs.",
    )
    command.add_argument("leaderboard", metavar="FILE", help="JSON Lines, one entry a line")
    command.add_argument(
        "--add",
        action="append",
        metavar="RUN",
        help="instead replay the result of a run folder, and add it if its claims hold",
    )
    command.add_argument("--author", default="anonymous", help="who adds it (%(default)s)")
    add_options(command, EnvConfig, only=_DATA)
    command.set_defaults(command=validate)
    return command


def _add_list(verbs: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = verbs.add_parser(
        "list",
        examples=(
            "lfgcl list",
            "lfgcl list --json",
        ),
        help="list environments, networks, agents, and the names that options accept",
        description="List environments, networks, agents, and the names that options of prune "
        "accept.",
    )
    command.set_defaults(command=show_names)
    return command


def _add_run(
    command: argparse.ArgumentParser, text: str = "a run folder, or a .safetensors file"
) -> None:
    """Add a run folder or file, and whose code it may name."""
    command.add_argument("run", metavar="RUN_OR_FILE", help=text)
    command.add_argument(
        "--network",
        metavar="MODULE:FUNCTION",
        help="your own function that builds the unpruned network, where the file names one",
    )
    add_options(command, EnvConfig, only=("network_arguments",))
    command.add_argument(
        "--trust",
        action="store_true",
        help="import the functions that the file or its run names, which runs their code",
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    """Add a network, see :func:`lfgcl_env.cli.targets.load_network`."""
    parser.add_argument("network", metavar="ENV_OR_NETWORK", help="as for prune")
    add_options(parser, EnvConfig, only=_NETWORK)
    parser.set_defaults(weights=None)
