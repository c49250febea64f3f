"""A search goes on without anybody who reads what it says."""

import io
import json
import os
import subprocess
import sys

import pytest
from command_for_tests import RANDOM

import lfgcl_env
from lfgcl_env.cli.main import main
from lfgcl_env.cli.streams import LenientStream
from lfgcl_env.runs.run_folder import RunFolder

pytestmark = pytest.mark.slow

PRUNE = [sys.executable, "-m", "lfgcl_env.cli.main", "prune", "LFGCL-ResNet20-v0", *RANDOM]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell")
@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&-", "| head -1", ">&- 2>&- <&-"])
def test_a_closed_or_full_stream_loses_nothing(streams, tmp_path):
    out = tmp_path / "r\N{LATIN SMALL LETTER U WITH DIAERESIS}n"
    command = [*PRUNE, "--agent", "random", "--evaluations", "2", "--out", str(out)]
    quoted = subprocess.list2cmdline(command)
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{quoted} {streams}"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b"Exception" not in ended.stderr
    assert len(RunFolder(out).records()) == 2
    lfgcl_env.load_pruned(out / "pruned.safetensors")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_result_that_could_not_be_printed_is_an_error(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["list"]) == 2
    assert "standard output cannot be written" in capsys.readouterr().err


def test_characters_that_a_stream_lacks_are_escaped():
    written = io.BytesIO()
    stream = LenientStream(io.TextIOWrapper(written, encoding="ascii"))
    stream.write("90 \N{DEGREE SIGN}\n")
    stream.flush()
    assert written.getvalue() == b"90 \\xb0\n"
    assert stream.failure is None


def test_a_closed_stream_is_remembered_and_raises_nothing():
    closed = io.StringIO()
    closed.close()
    stream = LenientStream(closed)
    stream.write("lost")
    stream.flush()
    assert isinstance(stream.failure, ValueError)


def test_json_is_all_that_standard_output_gets(capfd, monkeypatch):
    def show(arguments):
        os.write(1, b"a library's line\n")
        subprocess.run(["echo", "a worker's line"], check=True)
        return {"loss": float("nan"), "rows": [{"most": float("inf")}], "count": 3}

    monkeypatch.setattr("lfgcl_env.cli.command_line.show_names", show)
    assert main(["list", "--json"]) == 0
    output = capfd.readouterr()
    assert json.loads(output.out) == {"loss": None, "rows": [{"most": None}], "count": 3}
    assert "a library's line" in output.err
    assert "a worker's line" in output.err
