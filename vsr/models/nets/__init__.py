"""Collect the networks by name; each has a file of its own."""

from __future__ import annotations

from torch import nn

from vsr.models.nets.edsr import EDSR
from vsr.models.nets.luma import LumaNet
from vsr.models.nets.msrresnet import MSRResNet
from vsr.models.nets.recurrent import RecurrentNet
from vsr.models.nets.rrdb import RRDBNet
from vsr.models.nets.srcnn import SRCNN
from vsr.models.nets.srgan import SRResNet
from vsr.models.nets.srvgg import SRVGG
from vsr.models.nets.vdsr import VDSR

__all__ = ["EDSR", "NETS", "SRCNN", "SRVGG", "VDSR", "LumaNet", "MSRResNet", "RRDBNet", "RecurrentNet", "SRResNet"]

NETS: dict[str, type[nn.Module]] = {
    "luma": LumaNet,
    "srresnet": SRResNet,
    "msrresnet": MSRResNet,
    "edsr": EDSR,
    "rrdb": RRDBNet,
    "srvgg": SRVGG,
    "vdsr": VDSR,
    "srcnn": SRCNN,
    "recurrent": RecurrentNet,
}
