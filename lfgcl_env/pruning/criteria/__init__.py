"""Orders of a group's channels, from most to least worth keeping."""
