#!/bin/sh
"$XILINX_XRT/bin/luge-card-native${LUGE_CARD_MUTANT:+-mutants}" 
code=$?
if [ $code -ne 0 ] && [ $code -ne 2 ]; then
  echo "the simulator luge-card-native ended with code $code; ending its host" >&2
  kill -TERM $PPID
fi
exit $code
