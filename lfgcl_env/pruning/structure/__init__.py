"""What a network's channels are: layers, groups, slices, surgery, and the saved form. No images."""
