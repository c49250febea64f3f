"""What both distributions install: all that the command needs, and nothing but the package."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from configparser import RawConfigParser
from email import message_from_string
from pathlib import Path

import pytest
import yaml

from lfgcl_env import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The source distribution and the wheel built from it; the checkout is left alone."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    for name in tracked_files():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source],
        check=True,
        capture_output=True,
    )
    return folder / "dist"


def tracked_files():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def shipped_files():
    """Every file of the three folders that are installed, by its path in the wheel."""
    inside = {"lfgcl_env": "lfgcl_env", "agents": "lfgcl_env/agents"}
    inside["baselines"] = "lfgcl_env/baselines"
    for name in tracked_files():
        folder, _, rest = name.partition("/")
        if folder in inside:
            yield f"{inside[folder]}/{rest}"


@pytest.fixture(scope="module")
def wheel(dist):
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_its_agents_and_baselines(wheel):
    shipped = set(shipped_files())
    assert {
        "lfgcl_env/agents/lfgcl.py",
        "lfgcl_env/baselines/amc.py",
        "lfgcl_env/networks/weights/resnet56_cifar10.safetensors",
        "lfgcl_env/images/sheets/resnet56_cifar10.png",
        "lfgcl_env/zoo/hyperparams/ddpg.yml",
        "lfgcl_env/py.typed",
    } <= shipped
    assert shipped <= set(wheel)


@pytest.mark.slow
def test_the_wheel_holds_nothing_else(wheel):
    others = {name for name in wheel if not name.split("/")[0].endswith(".dist-info")}
    assert others == set(shipped_files())


@pytest.mark.slow
def test_the_index_would_take_both_and_shows_the_readme(dist):
    pytest.importorskip("twine")
    ended = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("PASSED") == 2


@pytest.mark.slow
def test_the_wheel_installs_the_command_and_names_every_extra(dist):
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        entries = archive.read(f"{folder}/entry_points.txt").decode()
        metadata = archive.read(f"{folder}/METADATA").decode()
    assert "lfgcl = lfgcl_env.cli.main:main" in entries
    extras = set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.M))
    page = (ROOT / "docs/releasing.md").read_text(encoding="utf-8")
    assert [extra for extra in extras if f"`{extra}`" not in page] == []


@pytest.mark.slow
def test_the_index_gets_the_readme_with_absolute_links_and_the_addresses_of_the_project(dist):
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found = message_from_string(archive.read(name).decode())
    address = read_setup()["metadata"]["url"]
    titles = [one.partition(",")[0] for one in found.get_all("Project-URL")]
    assert {"Documentation", "Changelog", "Issues"} <= set(titles)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = [link for link in re.findall(r"\]\((\S+?)\)", readme) if ":" not in link]
    targets = re.findall(r"\]\((\S+?)\)", found.get_payload())
    assert f"{address}/raw/HEAD/docs/resnet56.svg" in targets
    assert {link for link in targets if not link.startswith("https:")} == {
        f"{address}/{'raw' if link.endswith('.svg') else 'blob'}/HEAD/{link}" for link in relative
    }


def read_setup():
    config = RawConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def workflow(name):
    return yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8"))


def test_a_release_is_published_after_all_of_ci_and_with_artifacts_of_its_own():
    ci, publish = workflow("ci"), workflow("publish")
    assert publish["jobs"]["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "ci" in publish["jobs"]["publish"]["needs"]
    assert "workflow_call" in ci[True]  # what YAML makes of `on`
    uploads = [
        step["with"]["name"]
        for job in (*ci["jobs"].values(), *publish["jobs"].values())
        for step in job.get("steps", ())
        if "upload-artifact" in step.get("uses", "")
    ]
    assert len(uploads) == len(set(uploads)) > 2


def test_a_release_is_refused_while_the_address_is_missing(tmp_path):
    (command,) = (
        step["run"]
        for step in workflow("publish")["jobs"]["build"]["steps"]
        if "ADDRESS" in step.get("run", "")
    )
    page = (ROOT / "docs/releasing.md").read_text(encoding="utf-8")
    files = command.split("ADDRESS ")[1].split()
    assert all(f"`{name}`" in page for name in files)
    listed = subprocess.run(
        ["git", "grep", "-lw", "ADDRESS", "--", ":!tests", ":!.github", ":!docs/releasing.md"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert {name for name in listed if not name.startswith("lfgcl_env/")} <= set(files)
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text().replace("ADDRESS", "https://x.y"))
    bash = ["bash", "-e", "-c", command]
    assert subprocess.run(bash, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / files[0]).write_text("git clone ADDRESS lfgcl-env")
    assert (
        subprocess.run(bash, cwd=tmp_path, check=False, stdout=subprocess.DEVNULL).returncode == 1
    )


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert re.search(r"^## (\S+)", changes, re.M).group(1) == __version__


def test_the_entry_for_gymnasium_has_the_form_of_its_template_and_the_lowest_version():
    page = (ROOT / "docs/gymnasium_entry.md").read_text(encoding="utf-8")
    entry = re.search(r"```text\n(.*?)```", page, re.S).group(1)
    form = (
        r"- \[[\w-]+: [\w ]+\]\(\S+\)\n\n  !\[Gymnasium version dependency\]\(\S+\)\n"
        r"  !\[GitHub stars\]\(\S+\)\n\n  (.+)\n"
    )
    text = re.fullmatch(form, entry).group(1)
    assert 2 <= len(re.findall(r"\.( |$)", text)) <= 5
    lowest = re.search(r"gymnasium>=([\d.]+)", (ROOT / "setup.cfg").read_text()).group(1)
    assert f"Gymnasium-v{lowest}-blue" in entry


@pytest.mark.slow
def test_the_source_distribution_holds_what_building_needs(dist):
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "setup.cfg", "pyproject.toml", "agents/lfgcl.py", "LICENSE"} <= names


@pytest.mark.slow
def test_the_installed_wheel_prunes_in_an_empty_folder_without_a_network_connection(dist, tmp_path):
    installed, work = tmp_path / "installed", tmp_path / "work"
    work.mkdir()
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(installed)
    command = "import sys; from lfgcl_env.cli.main import main; sys.exit(main())"
    options = ["--agent", "lfgcl", "--evaluations", "3", "--shortlist", "2", "--out", "run"]
    run_with(installed, work, "-c", command, "prune", "LFGCL-ResNet20-v0", *options)
    assert (work / "run" / "pruned.safetensors").is_file()


MAKE = """
import gymnasium as gym, lfgcl_env
env = gym.make("LFGCL-ResNet20-v0", num_images=4)
env.reset(seed=0)
print(lfgcl_env.__file__, env.step(env.action_space.sample())[4]["is_success"])
"""


@pytest.mark.slow
def test_the_source_distribution_installs_a_package_that_works(dist, tmp_path):
    pytest.importorskip("pip")
    installed, work = tmp_path / "installed", tmp_path / "work"
    work.mkdir()
    (file,) = dist.glob("*.tar.gz")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", installed]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *options, file],
        cwd=work,
        check=True,
    )
    (script,) = installed.glob("bin/lfgcl*")
    assert run_with(installed, work, script, "--version").split()[-1] == __version__
    made = run_with(installed, work, "-c", MAKE).split()
    assert made == [str(installed / "lfgcl_env" / "__init__.py"), "True"]


def run_with(installed, folder, *words):
    """Run Python with an installed package, elsewhere and offline; return what it prints."""
    packages = [path for path in sys.path if Path(path).name == "site-packages"]
    ended = subprocess.run(
        [sys.executable, "-S", *words],  # -S: no editable installation is looked for
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(installed), *packages]),
            "OMP_NUM_THREADS": "1",
            "HOME": str(folder / "home"),
            "https_proxy": "http://127.0.0.1:9",  # where nothing answers
            "http_proxy": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
