import pytest
import torch

from lfgcl_env.pruning.moments.patches import gram_with_one
from lfgcl_env.pruning.repair.ridge_fit import ByMoments, ByRows


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("count", [3, 7, 40])
def test_products_of_rows_and_moments_of_features_lead_to_the_same_weights(count, intercept):
    draw = torch.Generator().manual_seed(count)
    patches, goal, prior = (
        torch.randn(*shape, generator=draw, dtype=torch.float64) + 1
        for shape in ((count, 7), (count, 2), (2, 8))
    )
    by_moments = ByMoments(patches, gram_with_one(patches) / count, 0.1, intercept)(goal, prior)
    by_rows = ByRows(patches, 0.1, intercept)(goal, prior)
    torch.testing.assert_close(by_rows, by_moments, atol=1e-6, rtol=1e-6)
    assert torch.equal(by_rows[:, -1], prior[:, -1]) is not intercept
    assert not torch.allclose(by_rows[:, :-1], prior[:, :-1], atol=0.01)
