#!/bin/sh
# The same part of a video by two models, parted by a moving line.
# Example: scripts/ab_clip.sh in.mp4 ab.mp4 fast srresnet -ss 1:00 -t 5
set -eu
if [ $# -lt 4 ]; then
    echo "usage: $0 IN OUT MODEL_A MODEL_B [options of vsr enhance, such as -ss 1:00 -t 5]" >&2
    exit 2
fi
in=$1 out=$2 a=$3 b=$4
shift 4
[ ! -e "$out" ] || { echo "$0: $out: exists already" >&2; exit 3; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
vsr enhance "$in" "$work/a.mkv" --model "$a" "$@" -c:v ffv1
vsr enhance "$in" "$work/b.mkv" --model "$b" "$@" -c:v ffv1
vsr compare "$work/a.mkv" "$work/b.mkv" "$out" --layout split --label "${a##*/}" --label "${b##*/}"
