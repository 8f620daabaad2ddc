#!/bin/sh
# Every frame of a video, or of a part of it, enhanced, as PNG: OUT_DIR/000001.png and so on.
# Example, one minute into the film: scripts/extract_frames.sh in.mp4 frames -ss 1:00 -t 2
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 IN OUT_DIR [options of vsr enhance]" >&2
    exit 2
fi
in=$1 out=${2%/}
shift 2
mkdir -p "$out"
exec vsr enhance "$in" "$out/%06d.png" "$@"
