"""Run any agent on any environment of this package, and keep the best strategy."""
