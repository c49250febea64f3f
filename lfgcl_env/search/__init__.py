"""Running any agent on any environment of this package, and keeping the best."""
