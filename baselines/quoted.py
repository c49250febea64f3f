"""What publications report, most of it after training: quoted, not measured here.

Training cannot be put on the same ground as a search without it. These numbers stand beside a
comparison, not in it: baselines, training and the way MACs are counted differ from paper to paper.

Every row says where it was read. A row is here only if the number itself could be read; where the
paper could not, that is a later paper's table or the authors' code. For want of such a source there
is nothing of sparse structure selection (SSS; Huang and Wang, ECCV 2018), transformable
architecture search (TAS; Dong and Yang, NeurIPS 2019), network-to-network compression (N2N; Ashok
et al., ICLR 2018) and AACP (Lin et al., ICPR 2022).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quoted:
    """One published result on CIFAR-10.

    Attributes:
        method: its short name.
        paper: where the method was published.
        network: as this package names it.
        macs_ratio: fraction of the baseline's MACs that remains.
        baseline_top1: test accuracy of that paper's own baseline, in percent; None if not said.
        top1: of the pruned network, in percent.
        fine_tuned: whether the pruned network was trained after pruning; None if not said.
        training: what the method trains before that; empty for nothing.
        read_in: where the numbers were read.
    """

    method: str
    paper: str
    network: str
    macs_ratio: float
    baseline_top1: float | None
    top1: float
    fine_tuned: bool | None
    training: str
    read_in: str


_GAL = "Lin et al., CVPR 2019"
_GAL_TRAINS = "weights and a sparse mask, adversarially, without labels"
_GAL_CODE = "README of the authors' code: top-1 errors; MACs of a baseline with 125.49 M"
_LFPC = "He et al., CVPR 2020"
_LFPC_TRAINS = "the choice of every layer's criterion, on labelled images"
_PPSM = "Comput. Intell. Neurosci. 2022, 7775419 (probabilistic soft masks), table 2"
_AMC_TABLES = "ResNet-56's table in Torch-Pruning's benchmarks; README of DNAL's code agrees"
_GNN_RL = "Yu et al., ICML 2022"
_GNN_RL_CODE = "README of the authors' code"

_ROWS: tuple[tuple[str, str, str, float, float | None, float, bool | None, str, str], ...] = (
    ("GAL-0.6", _GAL, "resnet56", 78.30 / 125.49, 93.26, 92.98, False, _GAL_TRAINS, _GAL_CODE),
    ("GAL-0.6", _GAL, "resnet56", 78.30 / 125.49, 93.26, 93.38, True, _GAL_TRAINS, _GAL_CODE),
    ("GAL-0.8", _GAL, "resnet56", 49.99 / 125.49, 93.26, 90.36, False, _GAL_TRAINS, _GAL_CODE),
    ("GAL-0.8", _GAL, "resnet56", 49.99 / 125.49, 93.26, 91.58, True, _GAL_TRAINS, _GAL_CODE),
    ("LFPC", _LFPC, "resnet32", 0.474, 92.63, 92.12, None, _LFPC_TRAINS, _PPSM),
    ("LFPC", _LFPC, "resnet56", 0.471, 93.59, 93.34, None, _LFPC_TRAINS, _PPSM),
    ("LFPC", _LFPC, "resnet110", 0.397, 93.68, 93.79, None, _LFPC_TRAINS, _PPSM),
    ("HRank", "Lin et al., CVPR 2020", "resnet56", 0.500, 93.26, 93.17, True, "", _PPSM),
    ("HRank", "Lin et al., CVPR 2020", "resnet56", 0.259, 93.26, 90.72, True, "", _PPSM),
    ("AMC", "He et al., ECCV 2018", "resnet56", 0.500, 92.80, 91.90, None, "", _AMC_TABLES),
    ("GNN-RL", _GNN_RL, "resnet44", 0.500, None, 93.23, True, "", _GNN_RL_CODE),
    ("GNN-RL", _GNN_RL, "resnet56", 0.500, None, 93.49, True, "", _GNN_RL_CODE),
    ("GNN-RL", _GNN_RL, "resnet110", 0.500, None, 94.31, True, "", _GNN_RL_CODE),
)

QUOTED: tuple[Quoted, ...] = tuple(Quoted(*row) for row in _ROWS)
"""All of them, in no order of merit."""
