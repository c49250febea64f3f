"""Agents for the environments, one file each; `lfgcl prune --agent` takes a file's name."""
