"""Add the traces of telecine and deinterlacing to the moving parts of a video."""

from __future__ import annotations

import numpy as np

__all__ = ["TRACES", "traced"]

TRACES = ("telecine", "comb", "blend", "interpolate")
_CYCLE = 5  # frames of 3:2 pulldown, two of which show fields of two film frames
_MOVES_CODES = 4  # mean difference of R, G and B from which a pixel counts as moving


def traced(frames: np.ndarray, trace: str, phase: int) -> np.ndarray:
    """Give frames the traces of an interlaced past; parts that stand still are untouched.

    Args:
        frames: (N, h, w, 3) float32 code values.
        trace: one of `TRACES`: 'telecine' weaves the lines of two frames in two frames of five; 'comb' weaves them in
            all, the other lines half way to the next frame, as in a video shown without deinterlacing; 'blend' is the
            same after a filter that mixes neighbouring lines; 'interpolate' replaces the other lines by the mean of
            their neighbours, as a motion-adaptive deinterlacer does.
        phase: 0 to 4, of the pulldown; its lowest bit chooses the lines that are kept in the other traces.
    """
    following = np.concatenate((frames[1:], frames[-1:]))
    if len(frames) > 1:
        following[-1] = frames[-2]
    if trace == "telecine":
        return _telecined(frames, following, phase)
    other = slice(1 - phase % 2, None, 2)
    out = frames.copy()
    if trace == "interpolate":
        out[:, other] = _line_means(frames)[:, other]
    else:
        out[:, other] = (frames[:, other] + following[:, other]) / 2
    if trace == "blend":
        out = (out + _line_means(out)) / 2
    moving = np.abs(following - frames).mean(-1, keepdims=True) > _MOVES_CODES
    return np.asarray(np.where(moving, out, frames))


def _telecined(frames: np.ndarray, following: np.ndarray, phase: int) -> np.ndarray:
    """Put every other line of the following frame into two of five frames."""
    out = frames.copy()
    mixed = [position for position in range(len(frames)) if (position + phase) % _CYCLE in (2, 3)]
    out[mixed, 1::2] = following[mixed, 1::2]
    return out


def _line_means(frames: np.ndarray) -> np.ndarray:
    """Average the lines above and below each line."""
    above = np.concatenate((frames[:, 1:2], frames[:, :-1]), 1)
    below = np.concatenate((frames[:, 1:], frames[:, -2:-1]), 1)
    return np.asarray((above + below) / 2)
