#!/bin/sh
# Every file in refused/ must be refused at the line marked HERE, with the message after "refused:" and with advice.
# Two runs over an accepted kernel must give the same bytes.
rtlgen=$1 root=$2 bad=0 count=0
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$root" || exit 1
for f in hls/rtlgen/tests/refused/*.cpp; do
  count=$((count + 1))
  want=$(sed -n 's/.*refused: \(.*\)/\1/p' "$f")
  line=$(grep -n 'HERE' "$f" | head -1 | cut -d: -f1)
  if "$rtlgen" "$f" -I . -o "$work/out.sv" 2> "$work/err"; then echo "FAIL $f was accepted"; bad=1; continue; fi
  if ! grep -qF -- "$want" "$work/err"; then echo "FAIL $f: no message '$want' in:"; cat "$work/err"; bad=1; fi
  if ! grep -q "$(basename "$f"):$line:" "$work/err"; then echo "FAIL $f: line $line is not named in:"; cat "$work/err"; bad=1; fi
  if ! grep -q 'instead: ' "$work/err"; then echo "FAIL $f: no advice"; bad=1; fi
done
for n in 1 2; do "$rtlgen" hls/rtlgen/tests/constructs.cpp -I . -o "$work/$n.sv" || bad=1; done
cmp "$work/1.sv" "$work/2.sv" || { echo "FAIL output differs between two runs"; bad=1; }
[ "$bad" = 0 ] && echo "$count kernels refused with their messages"
exit $bad
