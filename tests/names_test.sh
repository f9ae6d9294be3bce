#!/bin/bash
# The docs name functions and files; this fails when one of them is not in the tree any more.
#
#   tests/names_test.sh [PAGE...]      default: the pages that follow the code
#
# Checked in each page, outside of fenced blocks:
#   `Class::name`, `Class::name()`   somewhere in the sources `Class::name` stands as such, or a file that declares
#                                    class, struct, enum or namespace Class also has the word `name`
#   `host/room/file.ext`             (hls, sim, tests, cmake, docs too) the file or folder is there
# A name of the standard library (`std::...`) is not ours to check.
set -u
cd "$(dirname "$0")/.." || exit 2
export LC_ALL=C

pages=("$@")
if [ ${#pages[@]} -eq 0 ]; then
  pages=(docs/life-of-a-write.md docs/architecture.md docs/formats.md docs/operations.md docs/firmware.md docs/flash.md docs/boards.md)
fi

places=()
for place in host sim hls firmware; do [ -d "$place" ] && places+=("$place"); done
sources() { grep -r --include='*.hpp' --include='*.cpp' --include='*.h' --include='*.fbs' "$@" "${places[@]}"; }

has_name() {  # CLASS NAME
  sources -qE "\b$1::~?$2\b" && return 0
  local file
  while read -r file; do
    grep -qE "\b$2\b" "$file" && return 0
  done < <(sources -lE "^ *(class|struct|enum( class)?|namespace|table|union) ([a-z:]+::)?$1\b")
  return 1
}

failed=0
checked=0
for page in "${pages[@]}"; do
  if [ ! -f "$page" ]; then
    echo "names_test: $page is not there"
    failed=1
    continue
  fi
  text=$(awk '/^```/ { fenced = !fenced; next } !fenced' "$page")
  while read -r name; do
    name=${name//\`/}
    name=${name%%(*}
    member=${name##*::}
    class=${name%::*}
    class=${class##*::}
    [ "$class" = std ] && continue
    checked=$((checked + 1))
    has_name "$class" "$member" || { echo "names_test: $page: \`$name\` is nowhere in the sources"; failed=1; }
  done < <(grep -oE '`[A-Za-z_][A-Za-z0-9_]*(::~?[A-Za-z_][A-Za-z0-9_]*)+(\(\))?`' <<<"$text" | sort -u)
  while read -r path; do
    path=${path//\`/}
    checked=$((checked + 1))
    [ -e "$path" ] || { echo "names_test: $page: there is no $path"; failed=1; }
  done < <(grep -oE '`(host|hls|firmware|boards|sim|tests|cmake|docs)/[A-Za-z0-9_./-]*`' <<<"$text" | sort -u)
done

if [ "$checked" -eq 0 ]; then
  echo "names_test: no name found in ${pages[*]}; the check itself is broken"
  exit 1
fi
[ "$failed" -eq 0 ] && echo "names_test: $checked names, all there"
exit "$failed"
