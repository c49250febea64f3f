"""Files are written whole or not at all, and never through a link."""

import os
import resource
import signal

import pytest
import torch

from lfgcl_env.edge.files import check_links, remove_partials, write_beside, write_text
from lfgcl_env.edge.named_code import names_code
from lfgcl_env.edge.schema import Schema, parse, read_text
from lfgcl_env.edge.sealed import Sealed, parse_sealed, sealed


@pytest.fixture
def outside(tmp_path):
    """A file elsewhere, and the folder that a stranger prepared."""
    (tmp_path / "folder").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    return tmp_path / "folder", victim


def test_a_link_is_replaced_and_not_followed(outside):
    folder, victim = outside
    (folder / "best.json").symlink_to(victim)
    write_text(folder / "best.json", "new")
    assert victim.read_text() == "precious"
    assert (folder / "best.json").read_text() == "new"
    assert not (folder / "best.json").is_symlink()


def test_a_planted_partial_link_is_not_written_through(outside, monkeypatch):
    folder, victim = outside
    monkeypatch.setattr("lfgcl_env.edge.files.secrets.token_hex", lambda _: "0" * 16)
    planted = folder / f"best.json.{'0' * 16}.partial"
    planted.symlink_to(victim)
    with pytest.raises(OSError, match=r"cannot write .*best\.json"):
        write_text(folder / "best.json", "new")
    assert victim.read_text() == "precious"


def test_what_a_killed_process_left_is_removed_and_nothing_else(outside):
    folder, victim = outside
    left = folder / f"best.json.{'1f' * 8}.partial"
    left.write_text("half")
    link = folder / f"best.json.{'2f' * 8}.partial"
    link.symlink_to(victim)
    others = [folder / name for name in ("notes.partial", "best.json", "best.json.12.partial")]
    for other in others:
        other.write_text("mine")
    remove_partials(folder)
    assert not left.exists()
    assert link.is_symlink()
    assert victim.exists()
    assert all(other.exists() for other in others)


@pytest.mark.parametrize("place", ["tensorboard", "sweep/pruned_0.30.safetensors", "best.json"])
def test_a_link_out_of_a_folder_is_refused(outside, place):
    folder, victim = outside
    (folder / "sweep").mkdir()
    check_links(folder)
    (folder / place).symlink_to(victim)
    with pytest.raises(ValueError, match="is a link out of"):
        check_links(folder)


def test_links_within_a_folder_are_fine(outside):
    folder, _ = outside
    (folder / "real").mkdir()
    (folder / "latest").symlink_to("real")
    check_links(folder)


@pytest.fixture
def full_disk():
    """No file may grow over 4 KiB; as on a full disk, writing more is an error."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(bytes(10_000)),
        lambda path: torch.save({"weight": torch.zeros(10_000)}, path),
    ],
    ids=["bytes", "torch.save"],
)
def test_a_full_disk_is_one_os_error_and_leaves_nothing(tmp_path, full_disk, write):
    with pytest.raises(OSError, match=r"cannot write .*agent\.zip: File too large") as refused:
        write_beside(tmp_path / "agent.zip", write)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_a_writer_stay_what_they_are(tmp_path):
    def fail(path):
        path.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_beside(tmp_path / "agent.zip", fail)
    assert list(tmp_path.iterdir()) == []


def test_only_files_of_bounded_length_are_read(tmp_path):
    (tmp_path / "long").write_text("x" * 101)
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        read_text(tmp_path / "long", 100)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a file"):
        read_text(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")


class Point(Sealed):
    x: float
    where: tuple[int, ...] = ()


def test_what_was_sealed_is_read_and_what_was_edited_is_not():
    text = sealed({"x": 1, "where": [2]})
    assert parse_sealed(Point, text, "point").x == 1.0
    reordered = '{"where": [2], ' + text.replace(', "where": [2]', "")[1:]
    assert parse_sealed(Point, reordered, "point").where == (2,)
    for edited in (text.replace('"x": 1', '"x": 2'), text.replace("[2]", "[2, 2]")):
        with pytest.raises(ValueError, match="point: its checksum does not fit"):
            parse_sealed(Point, edited, "point")


@pytest.mark.parametrize(
    "text",
    ["", "null", "[" * 100_000, '{"x": ' * 1000, '{"x": 1e999}', '{"x": NaN}', '{"x": "\ud800"}',
     '{"x": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_damaged_json_is_a_value_error_of_one_sentence(text):
    class Only(Schema):
        x: float

    with pytest.raises(ValueError, match=r"^point: ") as refused:
        parse(Only, text, "point")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("resnet20", False),
        ("torchvision:resnet18", False),
        ("lfgcl_env.agents.random:make", False),
        ("lfgcl_env.agents.random:np.load", True),
        ("lfgcl_env.edge.files:write_text", True),
        ("lfgcl_env.agents.random:make\n", True),
        ("torchvision:io.read_file", True),
        ("os:system", True),
        (3, False),
    ],
)
def test_what_names_foreign_code(name, code):
    assert names_code(name) == code
