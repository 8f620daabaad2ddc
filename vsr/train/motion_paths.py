"""Make clips of still images: a camera moves over one, others pass in front, scenes fade and are cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from vsr.train.clips import Footage

__all__ = ["Path", "random_path", "synthetic_clip"]

STANDING_STILL = 0.1
WITH_FOREGROUND = 0.5
WITH_FADE = 0.08
WITH_CROSS_FADE = 0.03
WITH_CUT = 0.06

Stills = Callable[[], np.ndarray]  # gives one image after another: (H, W, 3) uint8


@dataclass(frozen=True, slots=True)
class Path:
    """Describe the motion of an image: T positions in pixels as (T, 2) x and y, angles in radians, zoom factors."""

    shift: np.ndarray
    angle: np.ndarray
    zoom: np.ndarray

    def matrix(self, frame: int, center: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
        """Make the (2, 3) affine map that brings `center` of an image to its place in a frame of (height, width)."""
        c, s = self.zoom[frame] * math.cos(self.angle[frame]), self.zoom[frame] * math.sin(self.angle[frame])
        linear = np.array([[c, s], [-s, c]])
        place = np.array([size[1] / 2, size[0] / 2]) + self.shift[frame]
        return np.column_stack((linear, place - linear @ np.array(center)))


def random_path(num_frames: int, rng: np.random.Generator) -> Path:
    """Draw a smooth path: a drift that bends and changes speed, at times with rotation, zoom or shake.

    Speeds are up to 6 pixels a frame, in one of five paths up to 16.
    """
    times = np.arange(num_frames)
    speed = rng.uniform(0, 6 if rng.random() < 0.8 else 16) * rng.uniform(0.9, 1.1) ** times
    heading = rng.uniform(0, 2 * math.pi) + rng.uniform(-0.25, 0.25) * times
    steps = np.stack((speed * np.cos(heading), speed * np.sin(heading)), 1)
    shift = np.cumsum(steps, 0) - steps
    if rng.random() < 0.3:
        shift += rng.uniform(0, 0.8) * rng.standard_normal((num_frames, 2))
    turn = math.radians(rng.uniform(-0.6, 0.6)) if rng.random() < 0.4 else 0.0
    growth = 1 + rng.uniform(-0.006, 0.006) if rng.random() < 0.4 else 1.0
    # Half of the plain drifts go by whole pixels, which keeps the image as sharp as it is.
    if turn == 0 and growth == 1 and rng.random() < 0.6:
        shift = np.rint(shift)
    return Path(shift, turn * times, growth**times)


def _standing(num_frames: int) -> Path:
    return Path(np.zeros((num_frames, 2)), np.zeros(num_frames), np.ones(num_frames))


def _drawn(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw an image through an affine map on a frame of (height, width); beyond its edges it is mirrored."""
    is_whole = np.array_equal(matrix, np.rint(matrix)) and np.array_equal(matrix[:, :2], np.eye(2))
    kernel = cv2.INTER_NEAREST if is_whole else cv2.INTER_LANCZOS4
    return cv2.warpAffine(image, matrix, size[::-1], flags=kernel, borderMode=cv2.BORDER_REFLECT_101)


def _center(image: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    height, width = image.shape[:2]
    return float(round(rng.uniform(0.3, 0.7) * width)), float(round(rng.uniform(0.3, 0.7) * height))


def _blob(shape: tuple[int, ...], center: tuple[float, float], radius: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a lobed shape around a place as (H, W) float32 from 0 to 1, its edge soft by up to three pixels."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    dx, dy = x - center[0], y - center[1]
    around = np.arctan2(dy, dx)
    edge = radius * (1 + rng.uniform(0.1, 0.35) * np.sin(rng.integers(2, 6) * around + rng.uniform(0, 2 * math.pi)))
    softness = rng.uniform(0.5, 3)
    inside = (edge - np.hypot(dx * rng.uniform(0.6, 1), dy)) / softness + 0.5
    return np.asarray(np.clip(inside, 0, 1), np.float32)


def _scene(stills: Stills, num_frames: int, size: tuple[int, int], rng: np.random.Generator) -> list[np.ndarray]:
    """Draw a background on a path and, in half of the scenes, an object in front of it on another."""
    is_still = rng.random() < STANDING_STILL
    path = _standing(num_frames) if is_still else random_path(num_frames, rng)
    image = stills()
    center = _center(image, rng)
    frames = [_drawn(image, path.matrix(time, center, size), size) for time in range(num_frames)]
    if rng.random() >= WITH_FOREGROUND:
        return frames
    path = _standing(num_frames) if is_still else random_path(num_frames, rng)
    path = Path(np.rint(path.shift + rng.uniform(-0.3, 0.3, 2) * size[::-1]), path.angle, path.zoom)
    image = stills()
    center = _center(image, rng)
    mask = _blob(image.shape[:2], center, rng.uniform(0.1, 0.35) * min(size), rng)
    for time, frame in enumerate(frames):
        matrix = path.matrix(time, center, size)
        share = cv2.warpAffine(mask, matrix, size[::-1], flags=cv2.INTER_LINEAR)[..., None]
        mixed = frame + share * (_drawn(image, matrix, size).astype(np.float32) - frame)
        frames[time] = np.rint(mixed).astype(np.uint8)
    return frames


def _mixed(a: list[np.ndarray], b: list[np.ndarray], shares: np.ndarray) -> list[np.ndarray]:
    """Blend two scenes, frame by frame with a share of the second."""
    return [cv2.addWeighted(x, 1 - share, y, share, 0) for x, y, share in zip(a, b, map(float, shares), strict=True)]


def synthetic_clip(stills: Stills, num_frames: int, size: tuple[int, int], rng: np.random.Generator) -> Footage:
    """Film a clip of (height, width): a scene that at times fades, blends into another or is cut to it.

    A cut begins a scene; a cross-fade does not, as no detector would see it.
    """
    frames = _scene(stills, num_frames, size, rng)
    starts = np.arange(num_frames) == 0
    event = rng.random()
    if event < WITH_FADE:
        plain = [np.full_like(frames[0], 255 * int(rng.random() < 0.3))] * num_frames
        ramp = np.clip((np.arange(num_frames) - rng.integers(num_frames)) / rng.integers(3, 12), 0, 1)
        frames = _mixed(frames, plain, ramp if rng.random() < 0.5 else 1 - ramp)
    elif event < WITH_FADE + WITH_CROSS_FADE:
        ramp = np.clip((np.arange(num_frames) - rng.integers(1, num_frames)) / rng.integers(3, 9), 0, 1)
        frames = _mixed(frames, _scene(stills, num_frames, size, rng), ramp)
    elif event < WITH_FADE + WITH_CROSS_FADE + WITH_CUT and num_frames > 1:
        cut = int(rng.integers(1, num_frames))
        frames[cut:] = _scene(stills, num_frames - cut, size, rng)
        starts[cut] = True
    return Footage(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous(), starts)
