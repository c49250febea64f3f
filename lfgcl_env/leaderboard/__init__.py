"""A leaderboard that others can add to, whose entries hold what is needed to replay them.

A leaderboard is a file of JSON Lines: one :class:`Entry` a line, added by writing one more line.
:func:`replay` prunes anew as an entry says and measures what it claims; ``lfgcl validate`` does so
for a whole file. An entry names a network of this package or of torchvision, and runs no code.
"""

from lfgcl_env.leaderboard.entry import Entry, LineError, add_entries, read_entries, read_lines
from lfgcl_env.leaderboard.from_run import entry_of_run
from lfgcl_env.leaderboard.replaying import Replay, replay

__all__ = [
    "Entry",
    "LineError",
    "Replay",
    "add_entries",
    "entry_of_run",
    "read_entries",
    "read_lines",
    "replay",
]
