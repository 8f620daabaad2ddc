"""Upscale a video by FSRCNN as OpenCV's dnn_superres does, for peers.py: from cv2.VideoCapture to ffmpeg.

    python benchmarks/peers_opencv_script.py CLIP OUTPUT GRAPH NUM_THREADS [OPTION OF X264]...

GRAPH is a network of dnn_superres that `vsr.bench.opencv_peer.with_block_sizes` made readable for cv2.dnn; the usual
OpenCV packages lack the module, and its work on a frame is done here. cv2.VideoWriter would encode, but takes neither a
quality nor a preset. The clip's matrix, BT.709, is kept in the conversion to BGR and back.
"""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np

SCALE = 4


def upscaled(net: cv2.dnn.Net, frame: np.ndarray) -> np.ndarray:
    """Upscale (H, W, 3) BGR uint8 to (H·4, W·4, 3): luma by the network, the colour differences bilinearly."""
    height, width = frame.shape[:2]
    ycrcb = cv2.cvtColor(frame, cv2.COLOR_BGR2YCrCb)
    net.setInput(cv2.dnn.blobFromImage(ycrcb[:, :, 0], 1 / 255))
    luma = cv2.convertScaleAbs(cv2.max(net.forward()[0, 0], 0), alpha=255)  # rounded, and cut off at 255
    colors = cv2.resize(ycrcb[:, :, 1:], (width * SCALE, height * SCALE))
    return cv2.cvtColor(np.dstack((luma, colors)), cv2.COLOR_YCrCb2BGR)


def main() -> None:
    clip, output, graph, num_threads, *x264 = sys.argv[1:]
    cv2.setNumThreads(int(num_threads))
    net = cv2.dnn.readNetFromTensorflow(graph)
    capture = cv2.VideoCapture(clip)
    width, height, fps = (
        capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS)
    )
    size = f"{round(width) * SCALE}x{round(height) * SCALE}"
    raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", size, "-r", str(fps), "-i", "-"]
    colors = ["-vf", "scale=out_color_matrix=bt709", "-pix_fmt", "yuv420p", "-colorspace", "bt709"]
    command = ["ffmpeg", "-v", "error", "-y", *raw, *colors, *x264, output]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        while True:
            is_frame, frame = capture.read()
            if not is_frame:
                break
            encoder.stdin.write(upscaled(net, frame).tobytes())
    sys.exit(encoder.returncode)


if __name__ == "__main__":
    main()
