"""Plot curves over frames as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

from vsr.extras import importing

__all__ = ["check_plots", "plot_psnr"]

_COLORS = {False: ("#ffffff", "#333333"), True: ("#16181d", "#d5d8de")}  # ground and ink, by is_dark
_LINES = ("#8a8f99", "#c59b3a", "#2f7de1", "#d1495b", "#2a9d6f", "#8e5bd0", "#e07b39", "#1c9cb0")
_STYLES = ("-", "--", ":")  # of the lines, when all colours are taken


def check_plots() -> None:
    """Raise MissingExtraError where plots cannot be drawn, before anything is measured."""
    with importing("the plots of a benchmark", "bench", "matplotlib"):
        import matplotlib  # noqa: F401 - whether it loads


def plot_psnr(
    title: str,
    frames: str,
    curves: Mapping[str, Sequence[float]],
    *,
    restarts: Sequence[int] = (),
    is_dark: bool = False,
) -> bytes:
    """Plot luma PSNR in dB of every frame, a line per model, as PNG; frames without an error leave a gap.

    Args:
        title: heading of the plot.
        frames: label of the axis of frames.
        curves: PSNR in dB by model.
        restarts: frames at which a network with memory begins anew; a thin line marks each.
        is_dark: draws on a dark ground.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ground, ink = _COLORS[is_dark]
    figure = Figure(figsize=(8, 3.4), dpi=150, facecolor=ground, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=ground)
    for index, (name, values) in enumerate(curves.items()):
        finite = [value if math.isfinite(value) else math.nan for value in values]
        marker = "o" if len(finite) < 2 else None
        turn, color = divmod(index, len(_LINES))
        style = _STYLES[turn % len(_STYLES)]
        axes.plot(finite, style, label=name, color=_LINES[color], linewidth=1.5, marker=marker)
    for frame in restarts:
        axes.axvline(frame, color=ink, linewidth=0.8, linestyle=(0, (1, 3)))
    axes.set_title(title, color=ink, fontsize=11, loc="left")
    axes.set_xlabel(frames, color=ink)
    axes.set_ylabel("luma PSNR (dB)", color=ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(colors=ink)
    axes.grid(alpha=0.25, color=ink, linewidth=0.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)
    axes.legend(frameon=False, labelcolor=ink, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
