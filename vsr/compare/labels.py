"""Write labels into images."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["labelled"]


def labelled(image: np.ndarray, text: str) -> np.ndarray:
    """Write a line of text, shortened to fit, into the corner of (H, W, 3) uint8 RGB. OpenCV's font has ASCII alone."""
    image, font = np.ascontiguousarray(image), cv2.FONT_HERSHEY_SIMPLEX
    scale = 0.55
    (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    if width + 12 > image.shape[1]:
        scale *= max(0.5, (image.shape[1] - 12) / width)
        (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    cv2.rectangle(image, (0, 0), (width + 12, height + 14), (24, 24, 24), cv2.FILLED)
    cv2.putText(image, text, (6, height + 6), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return image
