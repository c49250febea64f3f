"""An encoder that hides padded positions as ``nn.TransformerEncoder`` does in inference."""

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function


class PaddedEncoder(nn.TransformerEncoder):
    """Gives what ``nn.TransformerEncoder`` gives, with layers that have no nested tensors.

    With a padding mask, the stock encoder runs on nested tensors in inference, from which padding
    comes back as zeros in front of its last norm. This one puts these zeros where the stock one
    would: masks that hide the ends of sequences, without gradients, in evaluation mode.
    """

    use_nested_tensor = False

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Encode sequences, (images, positions, channels), with the stock encoder's arguments."""
        encoded = super().forward(src, mask, src_key_padding_mask, is_causal)
        if src_key_padding_mask is None or mask is not None or not self._may_nest(src):
            return encoded
        hidden = src_key_padding_mask.bool()
        lengths = hidden.logical_not().sum(1, keepdim=True)
        behind = torch.arange(hidden.shape[1], device=hidden.device) >= lengths
        if self.mask_check:
            hidden = hidden & (hidden == behind).all()
        empty = torch.zeros_like(encoded)
        empty = empty if self.norm is None else self.norm(empty)
        return torch.where(hidden[..., None], empty, encoded)

    def _may_nest(self, src: Tensor) -> bool:
        """Whether the stock encoder would make a nested tensor of sequences with padding."""
        first = self.layers[0]
        needs_gradients = torch.is_grad_enabled() and (
            src.requires_grad or any(p.requires_grad for p in first.parameters())
        )
        return (
            torch.backends.mha.get_fastpath_enabled()
            and not first.training
            and src.dim() == 3
            and not torch.is_autocast_enabled()
            and not needs_gradients
            and not has_torch_function((src,))
        )
