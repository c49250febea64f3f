"""A network's structure: layers, groups, costs, surgery, and the saved form. Needs no images."""
