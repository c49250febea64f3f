"""Criteria: which of a group's channels are most worth keeping.

Every module is imported here, so that a new file's criterion is registered by its decorator alone.
"""

from lfgcl_env.edge.discovery import import_modules

import_modules(__name__)
