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
mkdir -p "$parts"
# Times are counted from where the file begins, as -ss does; a window without a frame is no part.
start=$(ffprobe -v error -show_entries format=start_time -of csv=p=0 "$in")
case $start in N/A | '') start=0 ;; esac
ffprobe -v error -select_streams v:0 -show_entries packet=pts_time -of csv=p=0 "$in" |
    awk -F, -v start="$start" -v seconds="$seconds" '
        $1 ~ /^-?[0-9]/ { window[int(($1 - start) / seconds)] = 1; if ($1 > last) last = $1 }
        END { for (i = 0; i <= (last - start) / seconds; i++) if (i in window) print i }' > "$parts/windows"
[ -s "$parts/windows" ] || { echo "$0: $in: its video has no times" >&2; exit 2; }
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
offset=$(awk "NR == 1 { print $start + \$1 * $seconds }" "$parts/windows")
ffmpeg -nostdin -v error -copyts -itsoffset "$offset" -f concat -safe 0 -i "$parts/list.ffconcat" -i "$in" \
    -map 0:v -map '1:a?' -map '1:s?' -map_chapters 1 -map_metadata 1 -c copy "$out" || { rm -f "$out"; exit 3; }
rm -r "$parts"
