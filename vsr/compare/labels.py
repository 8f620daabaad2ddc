"""Write labels into images."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["labelled"]


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB with a line of text in the corner, shortened to fit. OpenCV's font has ASCII alone."""
    picture, font = np.ascontiguousarray(picture), cv2.FONT_HERSHEY_SIMPLEX
    scale = 0.55
    (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    if width + 12 > picture.shape[1]:
        scale *= max(0.5, (picture.shape[1] - 12) / width)
        (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    cv2.rectangle(picture, (0, 0), (width + 12, height + 14), (24, 24, 24), cv2.FILLED)
    cv2.putText(picture, text, (6, height + 6), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return picture
