"""Second moments of layers' input patches, and the least squares that they make a closed form."""
