"""The command ``lfgcl``: run what was asked, print the result, and say what went wrong."""

import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Any

import gymnasium as gym

from lfgcl_env.cli.command_line import command_line
from lfgcl_env.cli.messages import messages, sentence, tell_error
from lfgcl_env.cli.outcome import Failure, Outcome
from lfgcl_env.cli.streams import descriptor_aside, lenient_streams
from lfgcl_env.edge.progress import show_progress
from lfgcl_env.engine import WorkerDied
from lfgcl_env.search.protocol import AgentError

INPUT_ERRORS = (ValueError, OSError, ImportError, gym.error.Error)
"""What bad input raises. Every other exception is a defect, or comes from the user's own code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; ``sys.argv``'s by default.

    Returns:
        0; 1 if an agent or unknown code raised, 2 for bad input, 130 if interrupted.
    """
    with lenient_streams() as (output, _):
        try:
            parsed = vars(command_line().parse_args(arguments))
        except SystemExit as ended:  # after --help, --version, or an error that argparse told
            return int(ended.code or 0)
        command, writes = parsed.pop("command"), parsed.pop("writes", False)
        verbose, quiet = parsed.pop("verbose", False), parsed.pop("quiet", False)
        as_json = parsed.pop("json", False)
        said = io.StringIO() if as_json else output
        aside = descriptor_aside() if as_json else nullcontext()
        with aside, messages(verbose=verbose, quiet=quiet), show_progress(not quiet):
            with redirect_stdout(said):  # type: ignore[type-var]
                code, outcome = _run(command, parsed, verbose=verbose)
        if as_json and outcome is not None:
            print(json.dumps(_finite(outcome), indent=2, allow_nan=False))
        output.flush()
        lost = output.failure
        needed = as_json or not writes
        if code == 0 and needed and lost and not isinstance(lost, BrokenPipeError):
            tell_error(lost, f"standard output cannot be written ({lost})", verbose=verbose)
            code = 2
    return code


def _finite(value: Any) -> Any:
    """Return JSON with null for numbers that JSON lacks: NaN and infinity."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run(
    command: Callable[[dict[str, Any]], Outcome], parsed: dict[str, Any], *, verbose: bool
) -> tuple[int, Outcome | None]:
    """Run a command, and say in one sentence what went wrong.

    Returns:
        The exit code, and the result if there is one.
    """
    try:
        return 0, command(parsed)
    except Failure as failure:
        tell_error(failure, sentence(failure), verbose=verbose)
        return 2, failure.outcome
    except KeyboardInterrupt as interrupt:
        print(f"lfgcl: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130, None
    except AgentError as error:
        cause = f" ({sentence(error.__cause__)})" if error.__cause__ else ""
        tell_error(error, f"{sentence(error)}{cause} (-v: its traceback)", verbose=verbose)
        return 1, None
    except WorkerDied as error:
        tell_error(error, f"{sentence(error)}; what was scored before is kept", verbose=verbose)
        return 1, None
    except INPUT_ERRORS as error:
        tell_error(error, sentence(error), verbose=verbose)
        return 2, None
    except (Exception, SystemExit) as error:
        if _lacks_memory(error):
            text = "there is not enough memory for this: ask for fewer or smaller images or layers"
            tell_error(error, text, verbose=verbose)
            return 2, None
        text = f"unexpected {type(error).__name__}: {sentence(error)}"
        advice = "-v shows the traceback; if no code of yours is in it, please report it"
        tell_error(error, f"{text[:300]} ({advice})", verbose=verbose)
        return 1, None


def _lacks_memory(error: BaseException) -> bool:
    """Whether more memory was asked for than there is; PyTorch has no exception for it on CPUs."""
    text = str(error)
    return isinstance(error, MemoryError) or any(
        part in text
        for part in ("can't allocate memory", "out of memory", "Storage size calculation overflow")
    )


if __name__ == "__main__":
    sys.exit(main())
