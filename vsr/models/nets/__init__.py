"""Collect the networks by name; each has a file of its own."""

from __future__ import annotations

from torch import nn

from vsr.models.nets.edsr import EDSR
from vsr.models.nets.espcn import ESPCN
from vsr.models.nets.fsrcnn import FSRCNN
from vsr.models.nets.imdn import IMDN
from vsr.models.nets.luma import LumaNet
from vsr.models.nets.msrresnet import MSRResNet
from vsr.models.nets.recurrent import RecurrentNet
from vsr.models.nets.rfdn import RFDN
from vsr.models.nets.rlfn import RLFN
from vsr.models.nets.rrdb import RRDBNet
from vsr.models.nets.srcnn import SRCNN
from vsr.models.nets.srgan import SRResNet
from vsr.models.nets.srvgg import SRVGG
from vsr.models.nets.vdsr import VDSR

__all__ = [
    "EDSR",
    "ESPCN",
    "FSRCNN",
    "IMDN",
    "NETS",
    "RFDN",
    "RLFN",
    "SRCNN",
    "SRVGG",
    "VDSR",
    "LumaNet",
    "MSRResNet",
    "RRDBNet",
    "RecurrentNet",
    "SRResNet",
]

NETS: dict[str, type[nn.Module]] = {
    "luma": LumaNet,
    "srresnet": SRResNet,
    "msrresnet": MSRResNet,
    "edsr": EDSR,
    "rrdb": RRDBNet,
    "srvgg": SRVGG,
    "vdsr": VDSR,
    "srcnn": SRCNN,
    "espcn": ESPCN,
    "fsrcnn": FSRCNN,
    "imdn": IMDN,
    "rfdn": RFDN,
    "rlfn": RLFN,
    "recurrent": RecurrentNet,
}
