"""Shared: an object that every worker loads once, however many tasks name it."""

import pickle
import shutil
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any, Generic, TypeVar
from zipfile import ZipFile

from lfgcl_env.edge.named_code import folders_of_own_code, make_importable

_MOST = 4  # objects that a worker holds; the one used longest ago goes first

_Value = TypeVar("_Value")
_held = threading.local()
_loaded: set[Path] = set()  # by any thread


class Shared(Generic[_Value]):
    """An object in a temporary file, which goes to workers by the file's name.

    Tensors are mapped, not read: workers on one machine share the pages of those that nobody
    writes to, and a page that one of them writes to becomes its own. Every thread has an object of
    its own, because scoring changes a problem's candidate.

    Args:
        value: is written at once; what changes afterwards does not reach the workers.

    Attributes:
        path: the file.
        key: names the object, in all processes.
        folders: which workers import its code from, after all others.

    Raises:
        ValueError: if it cannot be pickled, such as a reward that holds an open file.

    >>> Shared({"a": 1}).get()
    {'a': 1}
    """

    def __init__(self, value: _Value) -> None:
        folder = Path(mkdtemp(prefix="lfgcl-"))
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path, self._kind = folder / "shared.pt", type(value).__name__
        self.key, self.folders = str(self.path), folders_of_own_code()
        import torch

        from lfgcl_env.engine.pickling import Pickle

        try:
            torch.save(value, self.path, pickle_module=Pickle)
        except Exception as error:
            self._remove()
            raise ValueError(
                f"{self._kind} cannot be sent to workers ({type(error).__name__}: {error})"
            ) from error

    def get(self) -> _Value:
        """Return this thread's object, which is loaded when it is first asked for."""
        objects: dict[str, Any] = _held.__dict__
        if self.key not in objects:
            while len(objects) >= _MOST:
                del objects[next(iter(objects))]
            objects[self.key] = self._load()
        objects[self.key] = found = objects.pop(self.key)  # the latest is the last
        return found

    @staticmethod
    def holds(keys: Iterable[str]) -> bool:
        """Whether this thread has the objects of these keys."""
        return all(key in _held.__dict__ for key in keys)

    def _load(self) -> Any:
        found = read_shared(self.path)
        _loaded.add(self.path)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _named, (self.path, self._kind, self.folders)

    def __repr__(self) -> str:
        return f"Shared({self._kind})"


def read_shared(file: Path | IO[bytes]) -> Any:
    """Read an object from what :class:`Shared` wrote; PyTorch is imported if it has tensors."""
    with ZipFile(file) as archive:
        parts = archive.namelist()
        if not any("/data/" in part for part in parts):
            return pickle.loads(archive.read(next(p for p in parts if p.endswith("/data.pkl"))))
    import torch

    from lfgcl_env.networks.one_thread_tracer import one_at_a_time

    with one_at_a_time:  # a network of torch.fx is traced as it is loaded
        if isinstance(file, Path):
            return torch.load(file, mmap=True, weights_only=False)
        file.seek(0)
        return torch.load(file, weights_only=False)


def remove_orphaned() -> None:
    """Remove the files that this worker loaded, once the process that wrote them was killed."""
    for path in _loaded:
        shutil.rmtree(path.parent, ignore_errors=True)


def _named(path: Path, kind: str, folders: tuple[str, ...]) -> Shared[Any]:
    """Return what stands for a file that another process wrote, and removes."""
    make_importable(folders)  # a user's own code is named there, not written
    shared: Shared[Any] = Shared.__new__(Shared)
    shared.path, shared._kind = path, kind
    shared.key, shared.folders = str(path), folders
    return shared
