"""Importing this makes ``baselines`` importable: a script sees its own folder only."""

import sys
from pathlib import Path

CHECKOUT = str(Path(__file__).parents[1])

if CHECKOUT not in sys.path:
    sys.path.append(CHECKOUT)
