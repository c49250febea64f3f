"""A record of one scored strategy: one line of ``evaluations.jsonl``."""

from dataclasses import asdict, dataclass

from lfgcl_env.edge.bounds import Budget, Count, Seconds
from lfgcl_env.edge.sealed import Sealed, parse_sealed, sealed
from lfgcl_env.pruning import Evaluation
from lfgcl_env.pruning.structure.header import StoredEvaluation


@dataclass(frozen=True)
class Record:
    """One line of ``evaluations.jsonl``.

    Attributes:
        index: 1 for the first distinct strategy, 2 for the second, ...
        seconds: of search until it was scored, pauses between interruption and resuming excluded.
        reward: the return of the episode up to the step that scored it.
        budget: of the episode in which it was scored.
        evaluation: of the strategy.
    """

    index: int
    seconds: float
    reward: float
    budget: float
    evaluation: Evaluation

    def to_json(self) -> str:
        """Return one line of JSON, from which :meth:`from_json` makes an equal record."""
        fields = asdict(self)
        evaluation = fields.pop("evaluation")
        return sealed(fields | evaluation)

    @staticmethod
    def from_json(line: str, what: str = "the record") -> "Record":
        """Read one line.

        Args:
            line: JSON.
            what: names it in messages.

        Raises:
            ValueError: if it is not a record, or was damaged or edited.
        """
        found = parse_sealed(_Line, line, what)
        return Record(
            found.index, found.seconds, found.reward, found.budget, restored_evaluation(found)
        )


@dataclass(frozen=True)
class Scored:
    """One line of ``scored.jsonl``: what workers found, before the search comes to it.

    Attributes:
        score: of the environment's reward, whatever wrappers make of it.
        evaluation: of the strategy.
    """

    score: float
    evaluation: Evaluation

    def to_json(self) -> str:
        """Return one line of JSON, from which :meth:`from_json` makes an equal one."""
        return sealed({"score": self.score} | asdict(self.evaluation))

    @staticmethod
    def from_json(line: str, what: str = "the line") -> "Scored":
        """Read one line.

        Raises:
            ValueError: if it is none, or was damaged or edited.
        """
        found = parse_sealed(_ScoredLine, line, what)
        return Scored(found.score, restored_evaluation(found))


class _ScoredLine(StoredEvaluation, Sealed):
    score: float


class _Line(StoredEvaluation, Sealed):
    index: Count
    seconds: Seconds
    reward: float
    budget: Budget


def restored_evaluation(stored: StoredEvaluation) -> Evaluation:
    """Make an evaluation from one in a file."""
    return Evaluation(
        tuple(stored.keep),
        stored.similarity,
        stored.macs,
        stored.params,
        stored.macs_ratio,
        stored.params_ratio,
    )
