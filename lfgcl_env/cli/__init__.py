"""The command ``lfgcl``."""
