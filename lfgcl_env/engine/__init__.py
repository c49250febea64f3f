"""Where strategies are scored: in this process, or by many workers.

Everything here takes an ``Executor`` of the standard module ``concurrent.futures``, or what has its
``submit``: :class:`Processes` and :class:`RayActors` of this package, a user's own pool of threads
or processes, Dask's ``client.get_executor()``, submitit's ``AutoExecutor``. What does not depend on
a strategy, a problem or a reward, is written to a file once (:class:`Shared`), and every worker
loads it once; with each strategy go its numbers and the file's name. To Ray's actors the file's
content goes through Ray's object store; other workers on other machines must see the same folder
for temporary files (``TMPDIR``).

>>> import torch
>>> from concurrent.futures import ThreadPoolExecutor
>>> from lfgcl_env import PruningProblem
>>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> problem = PruningProblem(network, torch.randn(16, 4))
>>> with ThreadPoolExecutor(2) as executor:  # or Processes(2)
...     found = problem.evaluate_many([[4], [5], [6]], executor)
>>> found == [problem.evaluate([channels]) for channels in (4, 5, 6)]
True
"""

from lfgcl_env.engine.engines import ENGINES, asked_engine, check_gpus, open_engine
from lfgcl_env.engine.in_flight import InFlight, spread
from lfgcl_env.engine.processes import Processes
from lfgcl_env.engine.ray_actors import RayActors
from lfgcl_env.engine.shared import Shared
from lfgcl_env.engine.worker_executor import WorkerDied, WorkerExecutor

__all__ = [
    "ENGINES",
    "InFlight",
    "Processes",
    "RayActors",
    "Shared",
    "WorkerDied",
    "WorkerExecutor",
    "asked_engine",
    "check_gpus",
    "open_engine",
    "spread",
]
