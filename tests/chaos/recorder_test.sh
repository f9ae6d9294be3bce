#!/bin/bash
# luge-recorder against servers that keep their word and servers that do not, made with nbdkit.
#
#   tests/chaos/recorder_test.sh [BUILD]      default: build
set -u
build=$(realpath "${1:-$(dirname "$0")/../../build}")
command -v nbdkit >/dev/null || { echo "recorder_test: nbdkit is not installed"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# expect CODE TEXT NBDKIT-ARGUMENTS...
# The code is the recorder's own: nbdkit may abort (connections.c, "sock >= 0") when a client leaves while answers are on their way,
# and then gives its own code instead.
expect() {
  local code=$1 text=$2 got
  shift 2
  echo none >"$work/code"
  nbdkit -U - "$@" --run "timeout 60 '$build/tests/luge-recorder' --uri \"\$uri\" --for 1s --patience 3s --pause-us 300 --blocks 16; echo \$? >'$work/code'" >"$work/out" 2>"$work/err"
  got=$(cat "$work/code")
  if [ "$got" = "$code" ] && grep -q "$text" "$work/out" "$work/err"; then return; fi
  echo "recorder_test: nbdkit $*: exit code $got, not $code with '$text': $(tail -c 600 "$work/out" "$work/err")"
  failed=1
}

expect 0 '"verdict":"ok"' memory 8M
expect 0 '"verdict":"ok"' --filter=delay memory 8M rdelay=3ms wdelay=2ms
expect 3 'Input/output error' --filter=error memory 8M error-pwrite-rate=10%
expect 4 'no answer' --filter=delay memory 8M delay-read=30
# Now and then a write goes nowhere, and says that it went well.
cat >"$work/liar.py" <<'PLUGIN'
import random
API_VERSION = 2
disk = bytearray(8 << 20)
def open(readonly): return 1
def get_size(h): return len(disk)
def pread(h, buf, offset, flags): buf[:] = disk[offset:offset + len(buf)]
def pwrite(h, buf, offset, flags):
    if random.random() > 0.05: disk[offset:offset + len(buf)] = buf
def trim(h, count, offset, flags): disk[offset:offset + count] = bytes(count)
def zero(h, count, offset, flags): disk[offset:offset + count] = bytes(count)
PLUGIN
expect 1 'no order of the operations explains' python "$work/liar.py"
[ $failed = 0 ] && echo "recorder_test: tells the truthful from the others"
exit $failed
