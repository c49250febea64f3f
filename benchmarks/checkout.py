"""Importing this makes ``baselines`` and the current folder's modules importable.

A script sees its own folder only.
"""

import os
import sys
from pathlib import Path

for folder in (str(Path(__file__).parents[1]), os.getcwd()):
    if folder not in sys.path:
        sys.path.append(folder)
