"""The pixel shuffle: as PyTorch's, whatever the layout, the type and the factor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vsr.color.shuffle import shuffled


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("is_last", [True, False])
def test_is_pytorchs_and_shares_no_memory(dtype: torch.dtype, factor: int, channels: int, is_last: bool) -> None:
    values = torch.arange(2 * channels * factor**2 * 5 * 7).view(2, channels * factor**2, 5, 7)
    wanted = F.pixel_shuffle(values, factor).to(dtype)
    x = values.to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if is_last else x
    found = shuffled(x, factor)
    assert found.dtype == dtype and found.is_contiguous()
    assert torch.equal(found, wanted)
    x.zero_()
    assert torch.equal(found, wanted)


def test_takes_a_part_of_the_channels_of_another() -> None:
    x = torch.rand(1, 24, 5, 7).contiguous(memory_format=torch.channels_last)
    assert torch.equal(shuffled(x[:, :16], 4), F.pixel_shuffle(x[:, :16], 4))
