"""What ``lfgcl recover`` shows and logs while it trains."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lfgcl_env.edge.progress import Advance, progress
from lfgcl_env.recovery.recovering import Progress
from lfgcl_env.runs.log_group import LogGroup
from lfgcl_env.runs.log_writers import TensorBoard, WandB


class RecoveryLogs:
    """A bar of steps, and every epoch's loss and score in the other logs.

    Args:
        advance: moves the bar on.
        folder: of TensorBoard's and wandb's files; made if it is missing, and its events replaced.
        wandb: log to Weights & Biases too.
        settings: of the recovery, for wandb.
    """

    def __init__(
        self, advance: Advance, folder: Path, settings: Mapping[str, Any], *, wandb: bool
    ) -> None:
        self._advance = advance
        self._epochs, self._note = 0, ""
        self._began = time.perf_counter()
        self._logs = LogGroup("recovery")
        if wandb:
            folder.mkdir(exist_ok=True)
            self._logs.add(WandB(folder, settings))
        if find_spec("tensorboard") is not None:
            self._logs.open(TensorBoard, lambda: TensorBoard(folder, datetime.now(UTC)))

    def __call__(self, now: Progress) -> None:
        """Show a step, and log the epochs that ended since the last one."""
        for epoch in now.epochs[self._epochs :]:
            self._epochs += 1
            values = {f"recovery/{name}": value for name, value in epoch.items()}
            self._logs.write(self._epochs, time.perf_counter() - self._began, values)
            self._note = f"loss {epoch['loss']:.4f}, score {epoch['score']:.5g}"
        self._advance(now.step, now.steps, self._note)

    def close(self) -> None:
        """End the logs."""
        self._logs.close()


@contextmanager
def recovery_logs(
    folder: Path, settings: Mapping[str, Any], *, wandb: bool
) -> Iterator[RecoveryLogs]:
    """Open the logs, and close them whatever happens."""
    with progress("recovery") as advance:
        logs = RecoveryLogs(advance, folder, settings, wandb=wandb)
        try:
            yield logs
        finally:
            logs.close()
