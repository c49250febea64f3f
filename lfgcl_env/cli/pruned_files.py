"""Pruned networks that commands are given: of a run folder, of a sweep, or of a file."""

import json
import logging
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lfgcl_env.cli.targets import import_own
from lfgcl_env.edge.named_code import refuse_code
from lfgcl_env.images.calibration import default_images
from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.networks.builders import call_builder
from lfgcl_env.networks.detectors import dense_outputs
from lfgcl_env.networks.feeding import feed
from lfgcl_env.pruning import load_pruned, read_structure
from lfgcl_env.runs.commands import IN_MEMORY, resume_command
from lfgcl_env.runs.run_folder import ARGUMENTS, PRUNED, RunFolder
from lfgcl_env.search.stored_sweep import read_sweep
from lfgcl_env.search.sweep_files import network_file

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Builder:
    """Who builds the unpruned networks of files.

    Attributes:
        function: the user's own; None for that which a file names.
        arguments: of the function.
        trust: whether a file may name a function of anybody, and any arguments for it.
    """

    function: Callable[..., nn.Module] | None = None
    arguments: Mapping[str, Any] | None = None
    trust: bool = False

    def function_for(self, file: Path) -> Callable[..., nn.Module] | None:
        """Return the function for a file; None for one of this package or torchvision.

        Raises:
            ValueError: if the file names code that the user neither named nor trusts.
        """
        structure = read_structure(file)
        name, arguments = structure["network"], structure["arguments"]
        function = self.function
        if function is None:
            if name is None:
                raise ValueError(
                    f"{file} does not name its network: give --network module:function, which "
                    "builds the unpruned one"
                )
            how = f"if it is yours, give --network {name}, or --trust"
            refuse_code(name, str(file), how, trust=self.trust)
            function = import_own(name, "network")
        elif arguments != (self.arguments or {}) and not self.trust:
            raise ValueError(
                f"the network in {file} was built with arguments: give --network-arguments "
                f"{shlex.quote(json.dumps(arguments))}, or --trust"
            )
        return function and partial(call_builder, function, str(name), arguments)


def own_builder(arguments: Mapping[str, Any]) -> Builder:
    """Import the function that ``--network`` names."""
    name, given = arguments["network"], arguments["network_arguments"]
    function = name and import_own(name, "network")
    if name and not function:
        raise ValueError(f"--network {name!r} is not module:function, such as my_module:build")
    if given and not function:
        raise ValueError("--network-arguments are for the function that --network names")
    return Builder(function, given, arguments["trust"])


def pruned_networks(
    path: Path, budgets: Sequence[float], builder: Builder | None = None
) -> list[nn.Module]:
    """Load the networks of a sweep, or without budgets the one of a run folder or file.

    Detectors of torchvision are called for their dense outputs, as their baselines are.

    Args:
        path: of the run folder, or of the pruned network's file.
        budgets: of the sweep; empty for a single network.
        builder: of the unpruned networks; by default of this package and torchvision only.

    Raises:
        FileNotFoundError, ValueError: see :func:`~lfgcl_env.pruning.load_pruned`.
    """
    builder = builder or Builder()
    files = [path / network_file(b) for b in budgets] or [file_of(path)]
    networks = [load_pruned(file, builder.function_for(file)) for file in files]
    for network in networks:
        if (dense := dense_outputs(network)) is not None:
            feed(network, dense)
    return networks


def the_pruned_network(path: Path, builder: Builder) -> tuple[nn.Module, RunFolder | None]:
    """Load the one network of a run folder or file, and find the run that it is of.

    Raises:
        ValueError: if the folder is a sweep's, with several networks.
        FileNotFoundError: if there is none, or the run has not ended.
    """
    run = run_of(path)
    if path.is_dir() and run and (budgets := budgets_of_run(run)):
        raise ValueError(
            f"{path} holds {len(budgets)} networks: give the file of one, such as "
            f"{path / network_file(budgets[0])}"
        )
    (network,) = pruned_networks(path, [], builder)
    return network, run


def file_of(path: Path) -> Path:
    """Return the file of the network that a command is given by a run folder or a file."""
    return path / PRUNED if path.is_dir() else path


def keep_in_run(run: RunFolder | None, add: Callable[[Path], None]) -> None:
    """Let what was found be written into a run folder; a failure costs no more than that.

    Args:
        run: that the network is of; None for a file by itself.
        add: writes into the folder.
    """
    if run is None or not run.begun:
        return
    try:
        with run.lock():
            add(run.path)
    except (OSError, ValueError) as error:  # what took minutes to find is returned all the same
        _log.warning("this is not kept in the run folder: %s", error)


def name_in_run(run: RunFolder, file: Path) -> str:
    """Name a file as a run's records do: from the folder on, or in full where it is elsewhere."""
    whole, folder = file.resolve(), run.path.resolve()
    inside = whole.is_relative_to(folder)
    return (whole.relative_to(folder) if inside else whole).as_posix()


def run_of(path: Path) -> RunFolder | None:
    """Return the run that a folder or a file belongs to, also one of its sweep."""
    folders = [path] if path.is_dir() else [path.parent, path.parent.parent]
    return next((RunFolder(folder) for folder in folders if (folder / ARGUMENTS).exists()), None)


def budgets_of_run(run: RunFolder) -> list[float]:
    """Return the budgets of a run's sweep; none for a run on one budget.

    Raises:
        FileNotFoundError: if the run has not ended.
    """
    sweep = read_sweep(run.path)
    ended = (run.path / PRUNED).exists() or not run.begun
    if sweep:
        ended = len(sweep["points"]) == len(sweep["budgets"])
    if not ended:
        command = resume_command(run.path, run.asked())
        how = f": `{command}` goes on with it" if command else ", and can go on from Python alone"
        raise FileNotFoundError(f"the search in {run.path} has not ended{how}")
    return list(sweep["budgets"]) if sweep else []


def load_unpruned(structure: Mapping[str, Any], builder: Builder, seed: int) -> Baseline:
    """Load what the network with this structure was pruned from."""
    name = structure["network"]
    if structure.get("inputs"):
        raise ValueError(
            f"{name or 'this network'} takes several inputs, which no data set has: load it with "
            "lfgcl_env.load_pruned, and compare it with problem.score_network or problem.judge"
        )
    return load_baseline(
        builder.function or import_own(name, "network") or name,
        structure["weights"],
        input_shape=structure["input_shape"],
        normalization=structure["normalization"],
        seed=seed,
        **structure["arguments"],
    )


def images_for(arguments: Mapping[str, Any], run: Mapping[str, Any], baseline: Baseline) -> str:
    """Name the images that were asked for, else those of the run, else the network's usual ones.

    Raises:
        ValueError: if those of the run were in memory.
    """
    images = arguments.get("images") or run.get("images") or default_images(baseline)
    if "images" not in arguments and images in IN_MEMORY:
        raise ValueError("the run's images were a tensor and are not kept: give --images")
    return str(images)


def check_target(target: Path) -> None:
    """Refuse a file that is there, or that cannot be made, before minutes of work.

    Raises:
        FileExistsError: if it is there.
        FileNotFoundError: if its folder is not.
    """
    if os.path.lexists(target):
        raise FileExistsError(f"{str(target)!r} exists: delete it, or give another --output")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(target.parent)!r}: make it, or give another --output"
        )
