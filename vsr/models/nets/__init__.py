"""The networks, one file each."""

from __future__ import annotations

from torch import nn

from vsr.models.nets.luma import LumaNet
from vsr.models.nets.srgan import SRResNet

__all__ = ["NETS", "LumaNet", "SRResNet"]

NETS: dict[str, type[nn.Module]] = {"luma": LumaNet, "srresnet": SRResNet}
