#!/bin/sh
# Enhances a long film in parts of so many seconds, and joins them; sound, subtitles and chapters are IN's own.
# Parts lie in OUT.parts until all are done, and those that are there are not done again: several machines that share
# the folder may each do some of them. A part is one command, which the script prints.
set -eu
if [ $# -lt 3 ]; then
    echo "usage: $0 IN OUT SECONDS [options of vsr enhance]" >&2
    exit 2
fi
in=$1 out=$2 seconds=$3
shift 3
[ ! -e "$out" ] || { echo "$0: $out: exists already" >&2; exit 3; }
parts=$out.parts type=${out##*.}
frame_times() { # when each frame is shown, in the order of the file
    ffprobe -v error -select_streams v:0 -show_entries packet=pts_time -of csv=p=0 "$1" |
        sed -n 's/^\(-*[0-9][0-9.]*\).*/\1/p'
}
mkdir -p "$parts"
frame_times "$in" > "$parts/times"
start=$(ffprobe -v error -show_entries format=start_time -of csv=p=0 "$in")
awk -v start="$start" -v seconds="$seconds" '
    { window[int(($1 - start) / seconds)] = 1; if ($1 > last) last = $1 }
    END { for (i = 0; i <= (last - start) / seconds; i++) if (i in window) print i }' "$parts/times" > "$parts/windows"
while read -r window; do
    part=$parts/$window.$type
    [ ! -e "$part" ] || continue
    begin=$(awk "BEGIN { print $window * $seconds }")
    echo "vsr enhance $in $part -ss $begin -t $seconds -map 0:v:0 $*" >&2
    vsr enhance "$in" "$part" -ss "$begin" -t "$seconds" -map 0:v:0 "$@" < /dev/null
done < "$parts/windows"
awk -v seconds="$seconds" -v type="$type" '
    NR > 1 { print "duration " ($1 - before) * seconds }
    { print "file " $1 "." type; print "inpoint 0"; before = $1 }' "$parts/windows" > "$parts/list.ffconcat"
# The joined video begins where its first part does, and IN's first frame tells where that is.
begun=$(frame_times "$parts/$(head -n 1 "$parts/windows").$type" | sort -n | head -n 1)
offset=$(sort -n "$parts/times" | awk "NR == 1 { print \$1 - $begun }")
ffmpeg -nostdin -v error -copyts -itsoffset "$offset" -f concat -safe 0 -i "$parts/list.ffconcat" -i "$in" \
    -map 0:v -map '1:a?' -map '1:s?' -map_chapters 1 -map_metadata 1 -c copy -avoid_negative_ts disabled \
    "$parts/joined.$type"
if [ "$(frame_times "$parts/joined.$type" | wc -l)" -ne "$(wc -l < "$parts/times")" ]; then
    echo "$0: frames are missing; try other SECONDS" >&2
    exit 7
fi
mv "$parts/joined.$type" "$out"
rm -r "$parts"
