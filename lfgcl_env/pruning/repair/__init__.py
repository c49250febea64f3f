"""Repairs: changing a cut network, without labels or gradients, to make up for what was removed."""
