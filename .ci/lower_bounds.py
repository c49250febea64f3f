"""Print setup.cfg's lower bounds as pins, for ``pip install --constraint``; see the Makefile."""

import re
from configparser import ConfigParser
from pathlib import Path

BOUND = re.compile(r"^([\w.-]+)>=([\w.]+)$", re.MULTILINE)


def main() -> None:
    """Print one ``NAME==VERSION`` a line for all that is needed at run time and by the tests."""
    config = ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    extras = config["options.extras_require"]
    for requirements in (config["options"]["install_requires"], *extras.values()):
        for name, version in BOUND.findall(requirements):
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
