"""What is exported: pixels or inputs go in, named tensors come out."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lfgcl_env.networks import Normalization
from lfgcl_env.networks.outputs import holds_classes, named_outputs


class ExportedModule(nn.Module):
    """A network behind the normalisation of its inputs, if that is folded in.

    Args:
        network: in evaluation mode, on the CPU.
        normalization: of pixels in [0, 1], which are taken then; None for inputs as the network
            takes them.

    Attributes:
        names: of the outputs by their places, see :func:`name_outputs`; empty until they are known.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalization: Normalization | None) -> None:
        super().__init__()
        self.network = network
        self.names: dict[str, str] = {}
        self.folded = normalization is not None
        if normalization is not None:
            mean, std = torch.tensor(normalization.mean), torch.tensor(normalization.std)
            self.register_buffer("mean", mean.reshape(-1, 1, 1))
            self.register_buffer("std", std.reshape(-1, 1, 1))

    def by_place(self, images: Tensor) -> dict[str, Tensor]:
        """Return the network's outputs by their places in what it returns."""
        if self.folded:
            images = (images - self.mean) / self.std
        return named_outputs(self.network(images))

    def by_name(self, images: Tensor) -> dict[str, Tensor]:
        """Return the network's outputs by their names."""
        return {self.names[place]: tensor for place, tensor in self.by_place(images).items()}

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Return the only output, or several by name."""
        found = self.by_name(images)
        return next(iter(found.values())) if len(found) == 1 else found


def name_outputs(found: Mapping[str, Tensor]) -> dict[str, str]:
    """Name the outputs of a network.

    Args:
        found: what it returned, by place, see :func:`lfgcl_env.networks.outputs.named_outputs`.

    Returns:
        By place. An output alone is called ``logits`` where it is taken for scores of classes, else
        ``output``.

    >>> name_outputs({"": torch.zeros(2, 10)}), name_outputs({"": torch.zeros(2, 1)})
    ({'': 'logits'}, {'': 'output'})
    >>> name_outputs({"0": torch.zeros(2, 5), "aux.0": torch.zeros(2, 5)})
    {'0': 'output_0', 'aux.0': 'aux_0'}
    """
    if found.keys() == {""}:
        return {"": "logits" if holds_classes(found[""].shape[1:]) else "output"}
    names = {place: place.replace(".", "_") for place in found}
    return {p: f"output_{name}" if name[0].isdigit() else name for p, name in names.items()}
