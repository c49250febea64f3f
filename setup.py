"""Say what setup.cfg cannot: where agents/ and baselines/ are installed, and the README's links."""

import re
from configparser import RawConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INSIDE = {"lfgcl_env.agents": "agents", "lfgcl_env.baselines": "baselines"}
RELATIVE = r"(?![a-z]+:|#)"


def description() -> str:
    """Return the README with absolute links, which work on an index of packages too."""
    config = RawConfigParser()
    config.read(HERE / "setup.cfg", encoding="utf-8")
    address = config["metadata"]["url"]
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(rf"(!\[[^\]]*\]\(){RELATIVE}", rf"\g<1>{address}/raw/HEAD/", text)
    return re.sub(rf"((?<!!)\[[^\]]*\]\(){RELATIVE}", rf"\g<1>{address}/blob/HEAD/", text)


setup(
    packages=[*find_packages(include=["lfgcl_env*"]), *INSIDE],
    package_dir=INSIDE,
    long_description=description(),
)
