#!/bin/sh
# What bounds.py must not let pass is noticed: recursion, calls through pointers, frames that are too large, of no fixed size or unknown.
#   bounds_test.sh DIR      the folder with firmware.elf and its .ci files
dir=$1
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
./bounds.py --elf "$dir/firmware.elf" --graphs "$dir" || exit 1
count=0
noticed() {  # FILE SED-EXPRESSION WORDS
  rm -f "$work"/*.ci && cp "$dir"/*.ci "$work" && sed -i "$2" "$work/$1"
  cmp -s "$dir/$1" "$work/$1" && { echo "FAIL '$2' changes nothing in $1"; exit 1; }
  if said=$(./bounds.py --elf "$dir/firmware.elf" --graphs "$work" 2>&1); then echo "FAIL not noticed: $2"; exit 1; fi
  case "$said" in *"$3"*) count=$((count + 1)) ;; *) echo "FAIL '$2' is noticed without '$3': $said"; exit 1 ;; esac
}
noticed bist.ci '/self_test/s/\([0-9]*\) bytes (static)/5000 bytes (static)/' 'worst stack'
noticed bist.ci '0,/bytes (static)/s/bytes (static)/bytes (dynamic)/' 'is dynamic'
noticed hal.ci '/sourcename: "fw_main" targetname: "_ZN2fw4pollEv"/s/targetname: "[^"]*"/targetname: "__indirect_call"/' 'through a pointer'
noticed hal.ci '/sourcename: "fw_main" targetname: "_ZN2fw4pollEv"/s/targetname: "[^"]*"/targetname: "fw_main"/' 'recursion'
noticed hal.ci '/sourcename: "fw_main" targetname: "_ZN2fw4pollEv"/s/targetname: "[^"]*"/targetname: "printf"/' 'nothing is known of printf'
echo "$count noticed"
