#!/bin/bash
# Every option that a program's --help lists is in its man page, and every option of a man page in the --help.
#
#   tests/man_test.sh [BIN]      default: build/bin
set -u
cd "$(dirname "$0")/.." || exit 2
export LC_ALL=C
bin=${1:-build/bin}
failed=0
checked=0

# Long options of a text, one a line.
options() { grep -oE -- '--[a-z][a-z-]*' | sort -u; }
page() { sed 's/\\-/-/g' "docs/man/$1.1"; }

same() {  # PROGRAM HELP-OPTIONS PAGE-OPTIONS
  checked=$((checked + $(wc -w <<<"$2")))
  local odd
  odd=$(comm -23 <(echo "$2") <(echo "$3") | tr '\n' ' ')
  [ -z "$odd" ] || { echo "man_test: docs/man/$1.1 lacks $odd"; failed=1; }
  odd=$(comm -13 <(echo "$2") <(echo "$3") | tr '\n' ' ')
  [ -z "$odd" ] || { echo "man_test: docs/man/$1.1 has options that $1 does not know: $odd"; failed=1; }
}

for program in luge-control luge-head luge-sled luge-attach luge-vmstated; do
  # An option begins its line; what help texts say of others does not count.
  same $program "$("$bin/$program" --help | grep -oE '^ +(-[a-z], *)?--[a-z-]+' | options)" "$(page $program | grep -E '^\.B -' | options)"
done

# `luge`: its own options and those of each of its commands.
commands() {  # COMMAND... : prints the full names of all commands below it that have no commands of their own
  local sub subs
  subs=$("$bin/luge" "$@" --help | awk '/^Subcommands:/{on=1;next} /^[^ ]/{on=0} on && /^  [a-z]/{sub(",.*","",$1); print $1}')
  [ -n "$subs" ] || { echo "$*"; return; }
  for sub in $subs; do commands "$@" "$sub"; done
}
# The commands of a page: the words at the beginning of a .B line; "start|restart" is two.
page_commands() {
  page luge | awk '/^\.SH /{on = $2 == "COMMANDS"} on && /^\.B [a-z]/ {
    n = 0; words = ""
    for (i = 2; i <= NF && $i ~ /^[a-z|]+$/; ++i) word[++n] = $i
    last = split(word[n], alternatives, "|")
    for (i = 1; i < n; ++i) words = words word[i] " "
    for (i = 1; i <= last; ++i) print words alternatives[i]
  }' | sort
}
odd=$(comm -23 <(commands | sort) <(page_commands) | tr '\n' ',')
[ -z "$odd" ] || { echo "man_test: docs/man/luge.1 says nothing of the commands $odd"; failed=1; }
odd=$(comm -13 <(commands | sort) <(page_commands) | tr '\n' ',')
[ -z "$odd" ] || { echo "man_test: docs/man/luge.1 has commands that luge does not know: $odd"; failed=1; }

help=$("$bin/luge" --help)
while read -r command; do
  # shellcheck disable=SC2086  # several words
  help+=$'\n'$("$bin/luge" $command --help)
done < <(commands)
help=$(grep -oE '^ +(-[a-z], *)?--[a-z-]+' <<<"$help")
same luge "$(options <<<"$help")" "$(page luge | grep -E '^\.B ' | options)"

[ "$checked" -gt 40 ] || { echo "man_test: only $checked options found; the check itself is broken"; failed=1; }
[ "$failed" -eq 0 ] && echo "man_test: $checked options, all there"
exit "$failed"
