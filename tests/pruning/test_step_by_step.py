"""Attention is run and counted step by step by one thread, and no other notices."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lfgcl_env.pruning.structure.layers import counting_flops
from lfgcl_env.pruning.structure.step_by_step import StepByStep, Unfused


def settings():
    flags = torch.backends.mkldnn.set_flags()
    return torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled(), flags


def macs_of(module, *inputs):
    with counting_flops() as counter:
        module(*inputs)
    return counter.get_total_flops() // 2


MASK = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) > 0.4
MASK[:, 0] = True


@pytest.mark.parametrize(
    "keywords",
    [
        {}, {"attn_mask": MASK}, {"attn_mask": MASK.float()}, {"is_causal": True}, {"scale": 0.3},
        {"enable_gqa": True},
    ],
    ids=["plain", "boolean", "added", "causal", "scaled", "grouped"],
)  # fmt: skip
@pytest.mark.parametrize(
    "attention", [F.scaled_dot_product_attention, torch.ops.aten.scaled_dot_product_attention]
)
def test_attention_step_by_step_is_fused_attention(attention, keywords):
    query = torch.randn(2, 4, 5, 8)
    key, value = torch.randn(2, 2, 2 if "enable_gqa" in keywords else 4, 5, 8)
    fused = attention(query, key, value, **keywords)
    spoiled = value.index_fill(-2, torch.tensor([4]), torch.nan)
    with StepByStep():
        torch.testing.assert_close(attention(query, key, value, **keywords), fused)
        assert attention(query, key, spoiled, **keywords).isnan().all()


def test_rows_that_attend_to_nothing_are_those_of_fused_attention():
    query, key, value = torch.randn(3, 2, 4, 5, 8)
    nothing = MASK.clone()
    nothing[2] = False
    fused = F.scaled_dot_product_attention(query, key, value, nothing)
    with StepByStep():
        stepped = F.scaled_dot_product_attention(query, key, value, nothing)
    torch.testing.assert_close(stepped, fused)


def test_no_other_thread_notices():
    before = settings()
    counting, seen = Event(), Event()
    other = nn.Sequential(nn.Linear(8, 8), nn.ReLU())

    class Waiting(nn.Module):
        def forward(self, x):
            counting.set()
            assert seen.wait(60)
            return F.scaled_dot_product_attention(x, x, x)

    with ThreadPoolExecutor(1) as threads:
        counted = threads.submit(macs_of, Waiting(), torch.randn(1, 2, 5, 8))
        assert counting.wait(60)
        assert settings() == before
        with torch.no_grad():
            other(torch.zeros(3, 8))
        seen.set()
        assert counted.result() == 2 * 2 * 5 * 5 * 8
    assert settings() == before


def test_modules_that_run_in_other_threads_are_not_counted():
    def busy():
        module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        while not done.is_set():
            module(torch.zeros(2, 8))

    done = Event()
    network = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(30)])
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(busy) for _ in range(2)]
        try:
            counts = {macs_of(network, torch.zeros(4, 8)) for _ in range(20)}
        finally:
            done.set()
        assert [run.result() for run in runs] == [None, None]
    assert counts == {30 * 4 * 64}


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(6, 8),
        nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True),
        nn.LSTM(6, 8, bias=False),
    ],
    ids=["one", "both ways", "without bias"],
)
def test_fused_recurrent_layers_count_as_their_products(layer):
    x = torch.randn(3, 7, 6)
    with torch.backends.mkldnn.flags(enabled=False):
        stepped = macs_of(layer, x)
    assert macs_of(layer, x) == stepped > 0


def test_attention_that_scripts_hide_is_counted():
    class Attending(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(x, x, x)

    scripted = torch.jit.script(Attending())
    assert macs_of(scripted, torch.randn(1, 2, 5, 8)) == 2 * 2 * 5 * 5 * 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_grouped_attention_of_scripts_is_taken_apart(dtype):
    @torch.jit.script
    def scripted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=True)

    query = torch.randn(2, 4, 5, 8, dtype=dtype)
    key, value = torch.randn(2, 2, 2, 5, 8, dtype=dtype)
    fused = scripted(query, key, value)
    spoiled = value.index_fill(1, torch.tensor([1]), torch.nan)
    with torch.no_grad(), Unfused():
        torch.testing.assert_close(scripted(query, key, value), fused, rtol=2e-2, atol=2e-2)
        apart = scripted(query, key, spoiled).isnan()
    assert not apart[:, :2].any()
    assert apart[:, 2:].all()


@pytest.mark.parametrize("keywords", [{}, {"attn_mask": MASK}, {"is_causal": True}, {"scale": 0.3}])
def test_attention_of_scripts_and_of_layers_is_taken_apart(keywords):
    @torch.jit.script
    def scripted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value)

    query, key, value = torch.randn(3, 2, 4, 5, 8)
    fused = F.scaled_dot_product_attention(query, key, value, **keywords)
    unknown = query.clone()
    unknown[:, 1, :, 3] = torch.nan
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    with torch.no_grad(), Unfused():
        found = F.scaled_dot_product_attention(query, key, value, **keywords)
        apart = scripted(unknown, key, value).isnan()
    torch.testing.assert_close(found, fused)
    assert apart[:, 1].all()
    assert not apart[:, [0, 2, 3]].any()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        wanted = layer(x, x, x, need_weights=False)[0]
        with StepByStep(), Unfused():
            torch.testing.assert_close(layer(x, x, x, need_weights=False)[0], wanted)
            x[0, 2, 1] = torch.nan
            assert layer(x, x, x, need_weights=False)[0][0].isnan().all()
