"""Scripts that produce the numbers in README and docs; each writes its result with provenance."""
