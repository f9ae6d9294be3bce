#!/usr/bin/env bash
# Every board's files are what its board.toml says, its block design runs under tclsh and has the firmware's address map, faults put into both are noticed, and
# a new board can be made and built as far as this machine has tools.
#   boards_test.sh [CARD.sv]
set -u
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL $*"; exit 1; }
boards=$(for d in */board.toml; do d=${d%/board.toml}; [ "$d" = template ] || echo "$d"; done)
count=0
for b in $boards; do
  ./board.py link "$b" --check || exit 1
  ./board.py constraints "$b" --check || exit 1
  if grep -q '^processor = "none"' "$b/board.toml"; then continue; fi
  ./board.py design "$b" --out "$work/$b.tcl" || exit 1
  tclsh check_design.tcl "$work/$b.tcl" ../hls/registers/card.h || exit 1
done
[ "$(sed -n 's/^id = //p' */board.toml | sort | uniq -d)" = "" ] || fail "two boards have one id"

LUGE_BOARDS=$work ./new test-board >/dev/null || fail "boards/new"
LUGE_BOARDS=$work ./new test-board 2>/dev/null && fail "a board was made over another"
LUGE_BOARDS=$work ./new 'Bad Name' 2>/dev/null && fail "a board of that name"
./board.py design test-board --boards "$work" --out "$work/qspi.tcl" || exit 1
tclsh check_design.tcl "$work/qspi.tcl" ../hls/registers/card.h || exit 1

refused() {  # SED-EXPRESSION WORDS: of the new board's board.toml
  mkdir -p "$work/bad/test-board" && sed "$1" "$work/test-board/board.toml" >"$work/bad/test-board/board.toml"
  cmp -s "$work/test-board/board.toml" "$work/bad/test-board/board.toml" && fail "'$1' changes nothing"
  if said=$(./board.py design test-board --boards "$work/bad" 2>&1); then fail "accepted: $1"; fi
  case "$said" in *"$2"*) count=$((count + 1)) ;; *) fail "'$1' is refused without '$2': $said" ;; esac
}
refused 's/m_axi_read = .*/m_axi_read = "HBM[0]"/' 'no memory HBM'
refused 's/m_axi_read = .*/m_axi_read = "DDR[3]"/' 'DDR has 1 banks'
refused 's/m_axi_read = .*/m_axi_read = "DDR"/' 'is not MEMORY'
refused 's/^name = "test.*/name = "other"/' 'its name is other'
refused 's/tool = "openFPGALoader"/tool = "xbmgmt"/' 'with tool xbmgmt'
refused 's/slot_bytes = 67108864/slot_bytes = 1000/' 'multiple'
refused 's/kernel_mhz = 250/kernel_mhz = 5000/' '50 to 500'
refused 's/^processor = .*/processor = "none"/' 'needs `scratch`'
refused '/^revisions/d;/^part/d;/core_milli/d' 'is missing'
noticed() {  # SED-EXPRESSION WORDS: of the design
  sed "$1" "$work/qspi.tcl" >"$work/bad.tcl"
  cmp -s "$work/qspi.tcl" "$work/bad.tcl" && fail "'$1' changes nothing"
  if said=$(tclsh check_design.tcl "$work/bad.tcl" ../hls/registers/card.h 2>&1); then fail "not noticed: $1"; fi
  case "$said" in *"$2"*) count=$((count + 1)) ;; *) fail "'$1' is noticed without '$2': $said" ;; esac
}
noticed 's/-offset 0x40020000/-offset 0x40050000/' 'watchdog is at 0x40050000'
noticed 's/-offset 0x80000000 -range 0x10000/-offset 0x80000000 -range 0x20000/' 'scratch has 0x20000 bytes'
noticed 's/-offset 0x40030000/-offset 0x40020000/' 'overlaps'
noticed '/assign_bd_address.*board_control/d' 'sees no board'
noticed 's/-offset 0x00008000/-offset 0x00009000/' 'shared words at 0x8000'
noticed '/wdt_reset/d' 'is not connected'
noticed 's/ip:axi_quad_spi flash/ip:axi_quad_spi flush/' 'no cell flash'
noticed 's/controller\/DLMB/controller\/DMLB/' 'no pin DMLB'
noticed '/^validate/d' 'not validated'
noticed 's/^save_bd_design/safe_bd_design/' 'unknown command'
noticed 's/ip:lmb_v10 local_bus_i/ip:lmb_v10 local_bus_d/' 'made twice'

# Link configurations that are not what board.toml says.
cp -r u50 "$work/u50" && sed -i 's/HBM\[0:15\]/HBM[0:14]/' "$work/u50/link.cfg"
./board.py link u50 --check --boards "$work" 2>/dev/null && fail "a link.cfg of hand is taken"

LUGE_BOARDS=$work LUGE_CARD_SV=${1:-} ./build test-board --out "$work/out" >"$work/said"
code=$?
[ $code -eq 3 ] || [ $code -eq 0 ] || fail "boards/build: $code"
[ -s "$work/out/controller.tcl" ] && [ -s "$work/out/board.coe" ] || fail "boards/build generates nothing"
[ $code -eq 0 ] || grep -q 'missing:.*vivado' "$work/said" || fail "boards/build does not say what is missing: $(cat "$work/said")"
echo "$(wc -w <<<"$boards") boards, a new one, $count faults noticed"
