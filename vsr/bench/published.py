"""List figures that papers give for their own networks and training data, to be shown beside measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["PUBLISHED", "Published", "published_on"]


@dataclass(frozen=True, slots=True)
class Published:
    """Hold the figures of a paper for a network.

    Args:
        parameters: their number, or 0 where it is not given.
        psnr_db, ssim: of the luma, by set; Vid4's sets are "Vid4 BI" and "Vid4 BD".
    """

    name: str
    scale: int
    parameters: int
    psnr_db: Mapping[str, float]
    source: str
    ssim: Mapping[str, float] = field(default_factory=dict)


_SRCNN = "Dong et al. 2016 (arXiv:1501.00092), as measured by Kim et al."
_VDSR = "Kim et al. 2016 (arXiv:1511.04587)"
_EDSR = "baseline of Lim et al. 2017 (arXiv:1707.02921), as later papers quote it"
_SRGAN = "Ledig et al. 2017 (arXiv:1609.04802)"
_BASICVSR = "table 1 of Chan et al. 2021 (arXiv:2012.02181)"


def _stills(set5: float, set14: float, bsd100: float) -> dict[str, float]:
    return {"Set5": set5, "Set14": set14, "BSD100": bsd100}


def _clips(name: str, bi: tuple[float, float] | None, bd: tuple[float, float] | None) -> Published:
    """Make an entry of PSNR and SSIM on Vid4 at ×4, trained and measured by BI and by BD."""
    figures = {key: pair for key, pair in (("Vid4 BI", bi), ("Vid4 BD", bd)) if pair}
    psnr_db, ssim = ({key: pair[index] for key, pair in figures.items()} for index in (0, 1))
    return Published(name, 4, 0, psnr_db, _BASICVSR, ssim)


PUBLISHED = (
    Published("SRCNN", 4, 57_000, _stills(30.48, 27.49, 26.90), _SRCNN),
    Published("VDSR", 4, 665_000, _stills(31.35, 28.01, 27.29), _VDSR),
    Published("EDSR baseline", 4, 1_518_000, _stills(32.09, 28.58, 27.57), _EDSR),
    Published("SRResNet", 4, 1_543_000, _stills(32.05, 28.49, 27.58), _SRGAN),
    Published("SRGAN", 4, 1_543_000, _stills(29.40, 26.02, 25.16), _SRGAN),
    Published("SRCNN", 2, 57_000, _stills(36.66, 32.42, 31.36), _SRCNN),
    Published("VDSR", 2, 665_000, _stills(37.53, 33.03, 31.90), _VDSR),
    Published("EDSR baseline", 2, 1_370_000, _stills(37.99, 33.57, 32.16), _EDSR),
    _clips("TOFlow", (25.89, 0.7651), None),
    _clips("DUF", None, (27.38, 0.8329)),
    _clips("RBPN", (27.12, 0.8180), None),
    _clips("EDVR", (27.35, 0.8264), (27.85, 0.8503)),
    _clips("BasicVSR", (27.24, 0.8251), (27.96, 0.8553)),
    _clips("IconVSR", (27.39, 0.8279), (28.04, 0.8570)),
)


def published_on(dataset: str, scale: int) -> list[Published]:
    """List the papers with a figure on a set, by its name in `Published`."""
    return [paper for paper in PUBLISHED if paper.scale == scale and dataset in paper.psnr_db]
