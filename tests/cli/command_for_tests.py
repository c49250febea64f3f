"""Running the command on the smallest search there is, and reading its errors."""

from lfgcl_env.cli.main import main

RANDOM = [*["--weights", "random", "--images", "random", "--num-images", "4"], "--shortlist", "0"]


def prune(out, *options, target="LFGCL-ResNet20-v0", agent="random", evaluations=3):
    search = ["--agent", agent, "--evaluations", str(evaluations), "--out", str(out)]
    return main(["prune", *([target] if target else []), *search, *RANDOM, *options])


def said(capsys):
    """Return standard error, which must end with one sentence after what a search shows."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    *_, last = error.splitlines()
    assert last.startswith("lfgcl: error: ")
    return last
