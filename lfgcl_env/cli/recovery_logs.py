"""What ``lfgcl recover`` shows and logs while it trains."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lfgcl_env.recovery.recovering import Progress
from lfgcl_env.runs.log_group import LogGroup
from lfgcl_env.runs.log_writers import TensorBoard, WandB


class RecoveryLogs:
    """A bar of steps, and every epoch's loss and score in the other logs.

    Args:
        folder: of TensorBoard's and wandb's files; made if it is missing, and its events replaced.
        wandb: log to Weights & Biases too.
        settings: of the recovery, for wandb.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, wandb: bool) -> None:
        self._epochs = 0
        self._began = time.perf_counter()
        self._logs = LogGroup("recovery")
        if wandb:
            folder.mkdir(exist_ok=True)
            self._logs.add(WandB(folder, settings))
        if find_spec("tensorboard") is not None:
            self._logs.open(TensorBoard, lambda: TensorBoard(folder, datetime.now(UTC)))
        self._bar = tqdm(unit="step", disable=None, file=sys.stderr, desc="recovery")

    def __call__(self, now: Progress) -> None:
        """Show a step, and log the epochs that ended since the last one."""
        self._bar.total = now.steps
        self._bar.update(now.step - self._bar.n)
        for epoch in now.epochs[self._epochs :]:
            self._epochs += 1
            values = {f"recovery/{name}": value for name, value in epoch.items()}
            self._logs.write(self._epochs, time.perf_counter() - self._began, values)
            self._bar.set_postfix_str(f"loss {epoch['loss']:.4f}, score {epoch['score']:.5g}")

    def close(self) -> None:
        """End the bar's line and the logs."""
        self._bar.close()
        self._logs.close()


@contextmanager
def recovery_logs(
    folder: Path, settings: Mapping[str, Any], *, wandb: bool
) -> Iterator[RecoveryLogs]:
    """Open the logs, and close them whatever happens."""
    logs = RecoveryLogs(folder, settings, wandb=wandb)
    try:
        yield logs
    finally:
        logs.close()
