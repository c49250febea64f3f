"""Say what setup.cfg cannot: agents/ and baselines/ are installed inside the package."""

from setuptools import find_packages, setup

INSIDE = {"lfgcl_env.agents": "agents", "lfgcl_env.baselines": "baselines"}

setup(packages=[*find_packages(include=["lfgcl_env*"]), *INSIDE], package_dir=INSIDE)
