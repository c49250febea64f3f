"""What the commands of ``lfgcl`` do, one file each; :mod:`lfgcl_env.cli` reads their arguments."""
