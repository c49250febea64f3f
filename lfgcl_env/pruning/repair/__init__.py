"""Repairs: changing a cut network, without labels or gradients, to make up for what was removed.

Every module is imported here, so that a new file's repair is registered by its decorator alone.
"""

from lfgcl_env.edge.discovery import import_modules

import_modules(__name__)
