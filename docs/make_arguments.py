"""Write docs/arguments.md from lfgcl_env.config, and the options in docs/recovery.md.

So every argument is documented once.
"""

from pathlib import Path

from lfgcl_env.cli import recovery_arguments
from lfgcl_env.config import (
    EnvConfig,
    GlobalConfig,
    LayerwiseConfig,
    ProblemConfig,
    options,
    table,
)
from lfgcl_env.pruning.registries import CHOICES
from lfgcl_env.search.search_config import SearchConfig

PATH = Path(__file__).with_name("arguments.md")
RECOVERY = Path(__file__).with_name("recovery.md")
BEGIN = "<!-- Made by docs/make_arguments.py from RecoveryOptions. -->"
END = "<!-- End of what is made. -->"
PAGE = """\
<!-- Made by docs/make_arguments.py from lfgcl_env/config.py: edit that, then run `make docs`. -->

# Arguments

These are the keyword arguments of `gym.make(ID, ...)`. Most are options of `lfgcl prune` as well,
with hyphens: `num_images` is `--num-images`. Arguments that decide what a strategy scores are
recorded with every run; the others, marked with a star, may change when a run is resumed.

## The pruning problem

Arguments of `lfgcl_env.PruningProblem(network, images, ...)` and of every environment.

{problem}

The names that these arguments accept:

{names}

## Network and images

Arguments of every environment.

{environment}

## The global environment, `LFGCL-...`

{global_}

## The layerwise environment, `AMC-...`

{layerwise}

## The search

Arguments of `lfgcl prune` and of `lfgcl_env.search.run_search.run_search(env, ...)`.

{search}
"""


def page() -> str:
    """Return the page in Markdown."""
    return PAGE.format(
        problem=_table(ProblemConfig),
        names=_names(),
        environment=_table(EnvConfig, ProblemConfig),
        global_=_table(GlobalConfig, EnvConfig),
        layerwise=_table(LayerwiseConfig, EnvConfig),
        search=_table(SearchConfig),
    )


def recovery_page() -> str:
    """Return the page on recovery with the table of its options as they are now."""
    above, _, rest = RECOVERY.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    _, _, below = rest.partition(f"{END}\n")
    return f"{above}{BEGIN}\n\n{recovery_arguments.table()}\n\n{END}\n{below}"


def _table(kind: type, base: type | None = None) -> str:
    """Return the table of the arguments that ``kind`` has and ``base`` has not."""
    known = options(kind)
    inherited = options(base) if base else {}
    text = table(kind, only=[name for name in known if name not in inherited])
    for name, option in known.items():
        if not option.decides:
            text = text.replace(f"| `{name}` |", f"| `{name}` * |")
    return text


def _names() -> str:
    """Return the table of the names that an argument accepts."""
    lines = ["| argument | names |", "|---|---|"]
    for argument, choices in CHOICES.items():
        lines.append(f"| `{argument}` | {', '.join(f'`{name}`' for name in choices)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
    RECOVERY.write_text(recovery_page(), encoding="utf-8")
