"""The networks, one file each."""

from __future__ import annotations

from torch import nn

from vsr.models.nets.edsr import EDSR
from vsr.models.nets.luma import LumaNet
from vsr.models.nets.srcnn import SRCNN
from vsr.models.nets.srgan import SRResNet
from vsr.models.nets.vdsr import VDSR

__all__ = ["EDSR", "NETS", "SRCNN", "VDSR", "LumaNet", "SRResNet"]

NETS: dict[str, type[nn.Module]] = {
    "luma": LumaNet,
    "srresnet": SRResNet,
    "edsr": EDSR,
    "vdsr": VDSR,
    "srcnn": SRCNN,
}
