"""Damaged and forged files of every kind: only ValueError or OSError comes out, and no code runs.

2,000 cases in all. Every case takes a good file, damages it, and reads it. The readers stop before
they build more than a small network, so that a case takes milliseconds.
"""

import json
import os
import sys
import tracemalloc
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks_for_tests import awaken, images, plain, simple_problem
from safetensors.torch import load_file, save_file

from lfgcl_env.edge.sealed import sealed
from lfgcl_env.images.image_sheet import read_sheet, write_sheet
from lfgcl_env.leaderboard import read_entries, read_lines
from lfgcl_env.leaderboard.from_run import entry_of_run
from lfgcl_env.networks import load_baseline
from lfgcl_env.networks.state_dicts import read_state_dict
from lfgcl_env.page.networks_found import exported, recovery
from lfgcl_env.pruning import load_pruned, read_structure
from lfgcl_env.runs.best import read_best, write_best
from lfgcl_env.runs.exports import add_to_exports, format_exports, read_exports
from lfgcl_env.runs.recoveries import add_to_recoveries, format_recoveries, read_recoveries
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.stored_sweep import read_sweep

LARGEST_ALLOCATION = 128 * 2**20
"""Bytes that reading any damaged file of a few kilobytes may take at once."""

ACCEPTED = (ValueError, OSError)

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "leaderboard.jsonl"

fuzz = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

NASTY = st.sampled_from(
    [
        None, True, -1, 0, 2, 10**12, 10**30, -(10**30), 0.5, 2.0, 1e30, -1e300, "", "x" * 10_000,
        "planted:build", "os:rmdir", "lfgcl_env.edge.files:remove_partials", "../../etc/passwd",
        "\x00", "\n", [], {}, [[]], [10**12], {"a": 1}, [None] * 20_000, "é\u2028",
    ]
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def planted(tmp_path_factory):
    """A module in the current folder, whose import leaves a file, and a folder to remove."""
    folder, before = tmp_path_factory.mktemp("planted"), Path.cwd()
    (folder / "planted.py").write_text("open('ran', 'w')\ndef build(*_, **__): open('ran', 'w')\n")
    (folder / "victim").mkdir()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    listed = sorted(os.listdir())
    yield
    assert sorted(os.listdir()) == listed
    assert "planted" not in sys.modules
    sys.path.remove(str(folder))
    os.chdir(before)


def read_safely(read, path):
    """Read a damaged file, and let nothing else out than what is accepted."""
    said = ""
    tracemalloc.start()
    try:
        read(path)
    except ACCEPTED as error:
        said = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert "\n" not in said
    assert peak < LARGEST_ALLOCATION


@st.composite
def damage(draw, content: bytes) -> bytes:
    """Flip bits, cut, repeat or insert."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(damaged) - 1)))
        kind = draw(st.sampled_from(["flip", "byte", "cut", "insert", "repeat", "nest"]))
        if kind == "flip" and damaged:
            damaged[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and damaged:
            damaged[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del damaged[place:]
        elif kind == "insert":
            damaged[place:place] = draw(st.binary(min_size=1, max_size=20))
        elif kind == "repeat":
            damaged[place:place] = damaged[place : place + 200]
        else:
            damaged[place:place] = draw(st.sampled_from([b"[", b'{"a":'])) * 5000
    return bytes(damaged)


def places(value, path=()):
    """The paths of all values in JSON."""
    yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from places(part, (*path, index))


@st.composite
def forgery(draw, fields: dict) -> dict:
    """Replace or remove values, or add some."""
    forged = json.loads(json.dumps(fields))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(forged))[1:]))
        place = forged
        for key in path[:-1]:
            place = place[key]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if kind == "remove":
            del place[path[-1]]
        elif kind == "add" and isinstance(place, dict):
            place[draw(st.sampled_from(["more", "code", "network", "horizon"]))] = deepcopy(
                draw(NASTY)
            )
        else:
            place[path[-1]] = deepcopy(draw(NASTY))
        if not forged:
            break
    return forged


TIMING = {"median": 2.0, "low": 1.0, "high": 3.0, "rounds": 5}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with one good file of every kind."""
    folder = tmp_path_factory.mktemp("good")
    problem = simple_problem(awaken(plain()), images(), budget=1.0)
    evaluation = problem.evaluate([3, 4])
    baseline = load_baseline("resnet20", "random")
    named = simple_problem(baseline, images(), budget=1.0)
    named.save(folder / "named.safetensors", named.channels // 2)
    run = RunFolder(folder)
    run.begin(
        {"environment": "LFGCL-v0", "network": "resnet20", "budget": 0.5, "num_images": 4,
         "weights": "random", "images": "random", "features": None, "agent": "random",
         "evaluations": 3, "agent_seed": 0}
    )  # fmt: skip
    facts = {"reward": 0.5, "evaluations": 1, "evaluations_asked": 1}
    facts |= {"evaluations_with_shortlist": 1, "steps": 1}
    write_best(folder, problem, evaluation, None, problem.compress([3, 4]), "scored", [], facts)
    stored = json.loads((folder / "best.json").read_text())
    names = ("keep", "similarity", "macs", "params", "macs_ratio", "params_ratio")
    one = {name: stored[name] for name in names}
    line = {"index": 1, "seconds": 0.5, "reward": 0.5, "budget": 0.5, **one}
    (folder / "evaluations.jsonl").write_text(f"{sealed(line)}\n{sealed(line | {'index': 2})}\n")
    candidate = {"origin": "search", "reward": 1.0, "searched": one, "repaired": one, "score": 1.0,
                 "delivery": "thorough"}  # fmt: skip
    point = {"budget": 0.5, "predicted": one, "origin": "search", "reward": 0.5, "searched": one,
             "repaired": None, "delivery": "thorough", "shortlist": [candidate],
             "evaluations": 3, "file": "x", "predicted_ms": [2.0, 1.0],
             "measured_ms": [TIMING, TIMING]}  # fmt: skip
    (folder / "sweep.json").write_text(sealed({"budgets": [0.5], "points": [point]}))
    recovered = {
        "file": "a", "of": "b", "of_tensors": "a" * 64, "tensors": "b" * 64, "score": "outputs",
        "before": 0.5, "after": 0.75, "epochs": [{"loss": 1.0, "score": 0.75}], "images": "random",
        "num_images": 8, "watched": 2, "labels": False, "options": {"epochs": 1}, "device": "cpu",
        "seconds": 1.5,
    }  # fmt: skip
    add_to_recoveries(folder, recovered)
    int8 = {
        "calibrated": 8, "calibration": "minmax", "images": 4, "float_bytes": 100,
        "agreement": 99.0, "error": 0.1,
        "times": [{"images": 1, "float_ms": 2.0, "int8_ms": 1.0}], "top1": [90.0, 89.0],
    }  # fmt: skip
    exporting = {
        "file": "c", "of": "a", "of_tensors": "a" * 64, "format": "onnx", "opset": 18, "bytes": 50,
        "takes": "pixels", "error": 1e-6, "int8": int8,
    }  # fmt: skip
    add_to_exports(folder, exporting)
    lines = SHIPPED.read_text().splitlines(keepends=True)
    (folder / "board.jsonl").write_text("".join(lines[:2]))
    pixels = (images(4, size=8) * 40 + 128).clamp(0, 255).byte()
    write_sheet(folder / "sheet.png", pixels, {"network": "resnet20"})
    return folder


def described(folder):
    """What pages say of recoveries and exports."""
    recoveries = read_recoveries(folder, ["a" * 64])
    exports = read_exports(folder, ["a" * 64])
    run = SimpleNamespace(
        networks=[folder / "pruned.safetensors"], recoveries=recoveries, exports=exports,
        options=None,
    )  # fmt: skip
    return format_recoveries(recoveries), format_exports(exports), recovery(run), exported(run)


READERS = {
    "recoveries.json": lambda path: described(path.parent),
    "exports.json": lambda path: described(path.parent),
    "arguments.json": lambda path: (RunFolder(path.parent).asked(), RunFolder(path.parent).started),
    "best.json": lambda path: (read_best(path.parent), entry_of_run(path.parent, "me")),
    "evaluations.jsonl": lambda path: RunFolder(path.parent).records(),
    "sweep.json": lambda path: read_sweep(path.parent),
    "board.jsonl": lambda path: (read_lines(path), read_entries(path)),
    "pruned.safetensors": lambda path: (read_structure(path), load_pruned(path, plain())),
    "named.safetensors": lambda path: (load_pruned(path), read_state_dict(path)),
    "sheet.png": read_sheet,
}


def copied(good, name, content):
    """A run folder like the good one, with another content of one file."""
    folder = good.parent / f"damaged-{name}"
    folder.mkdir(exist_ok=True)
    if name == "best.json":
        (folder / "arguments.json").write_bytes((good / "arguments.json").read_bytes())
    (folder / name).write_bytes(content)
    return folder / name


def test_the_good_files_are_read(good):
    for name, read in READERS.items():
        if name != "best.json":
            read(copied(good, name, (good / name).read_bytes()))
    read_best(good)


@pytest.mark.parametrize("name", READERS)
@fuzz
@given(data=st.data())
def test_a_damaged_file_is_refused(good, name, data):
    content = data.draw(damage((good / name).read_bytes()))
    read_safely(READERS[name], copied(good, name, content))


@pytest.mark.parametrize(
    "name", [name for name in READERS if name.endswith(("json", "jsonl", "safetensors"))]
)
@settings(fuzz, max_examples=70)
@given(data=st.data())
def test_a_forged_file_with_fitting_checksums_is_refused_or_harmless(good, name, data):
    if name.endswith("safetensors"):
        fields = read_structure(good / name)
        del fields["checksum"]
        forged = data.draw(forgery(fields))
        path = copied(good, name, b"")
        text = sealed(forged)
        save_file(load_file(good / name), path, metadata={"lfgcl_env": text})
    else:
        lines = (good / name).read_text()
        fields = json.loads(lines.splitlines()[0] if name.endswith("jsonl") else lines)
        fields.pop("checksum", None)
        forged = data.draw(forgery(fields))
        text = json.dumps(forged) if name == "board.jsonl" else sealed(forged)
        path = copied(good, name, f"{text}\n".encode())
    read_safely(READERS[name], path)
