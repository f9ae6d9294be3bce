#!/bin/sh
# What is generated is what card.toml says, and a description that contradicts itself is refused with the reason.
cd "$(dirname "$0")" || exit 1
./generate.py --check || exit 1
bad=$(mktemp) && trap 'rm -f "$bad"' EXIT
refused() {  # SED-EXPRESSION WORDS
  sed "$1" card.toml >"$bad"
  if said=$(./generate.py --check --toml "$bad" 2>&1); then echo "accepted: $1"; exit 1; fi
  case "$said" in *"$2"*) ;; *) echo "'$1' is refused without saying '$2': $said"; exit 1 ;; esac
}
refused 's/offset = 0x004/offset = 0x000/' 'is taken by id'
refused 's/\["drain", 1, 1/["drain", 0, 1/' 'field drain overlaps'
refused 's/\["cookie", 16, "u64"/["cookie", 24, "u64"/' 'cookie is at 24, expected 16'
refused 's/^size = 256/size = 128/' 'expected 128'
refused 's/rev 1/x/; s/"done"/x/; s/reset = 65536/reset = 65537/' 'not what card.toml says'
echo "the generated files are current"
