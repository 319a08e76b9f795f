#!/bin/bash
# Breaks the engine on purpose, one way at a time, and sees that the test named for it fails.
#
#   scripts/mutate.sh [WORD]   only the mutations whose name contains WORD
#   scripts/mutate.sh --check  whether each changes its file still; builds nothing
#
# Each is made in a git worktree of HEAD below .run/mutants (or $MUTANTS), which has a target directory of its own and
# is removed at the end. Every test is first seen to pass without a mutation; one that hangs with it has noticed, for it
# waits in vain for what was taken away. Exit code: 0 when all are caught, 1 when one survives, 2 when a mutation is not
# one: it changes nothing or does not compile, or its test does not pass unbroken.
set -u
cd "$(dirname "$0")/.."

LIST=tests/mutations/engine.list
LIMIT=120
WORD=${1:-}
MUTANTS=$(realpath -m "${MUTANTS:-.run/mutants}")
TREE=$MUTANTS/tree
export CARGO_TARGET_DIR=$MUTANTS/target

names=() files=() edits=() tests=()
while IFS= read -r line; do
  value=${line#* }
  case $line in
    name\ *) names+=("$value") edits+=("") ;;
    file\ *) files+=("$value") ;;
    edit\ *) edits[-1]+="$value;" ;;
    test\ *) tests+=("$value") ;;
    '' | \#*) ;;
    *) echo "mutate: $LIST: what is \"$line\"?" >&2; exit 2 ;;
  esac
done <"$LIST"

# Changes a file as the mutation of this number does.
mutate() { perl -0pi -e "${edits[$1]}" "$2"; }

if [ "$WORD" = --check ]; then
  stale=0 copy=$(mktemp)
  trap 'rm -f "$copy"' EXIT
  for i in "${!names[@]}"; do
    cp "${files[$i]}" "$copy" || { stale=2; continue; }
    mutate "$i" "$copy"
    cmp --quiet "${files[$i]}" "$copy" || continue
    echo "mutate: $LIST: \"${names[$i]}\" changes nothing in ${files[$i]}" >&2
    stale=2
  done
  exit $stale
fi

mkdir -p "$MUTANTS"
exec 9>"$MUTANTS/lock"
flock --nonblock 9 || { echo "mutate: another run is using $MUTANTS" >&2; exit 2; }

leave() { git worktree remove --force "$TREE" 2>/dev/null; }
trap leave EXIT
trap 'exit 130' INT TERM
leave
git worktree prune
git worktree add --quiet --detach "$TREE" HEAD || exit 2
[ ! -e .tools ] || ln -s "$(realpath .tools)" "$TREE/.tools"

# Builds, then runs a test under the limit: "passed", "failed", "hung", "absent" or "unbuilt".
verdict() {
  local log=$MUTANTS/log
  # shellcheck disable=SC2086
  (cd "$TREE" && cargo test --quiet $1 --no-run) >"$log" 2>&1 9>&- || { echo unbuilt; return; }
  # shellcheck disable=SC2086
  (cd "$TREE" && timeout --kill-after=5 "$LIMIT" cargo test $1) >"$log" 2>&1 9>&-
  local code=$?
  if ! grep -qE '^running [1-9][0-9]* tests?$' "$log"; then echo absent
  elif [ $code = 0 ]; then echo passed
  elif [ $code = 124 ] || [ $code = 137 ]; then echo hung
  else echo failed
  fi
}

row() { printf '%-9s %-50s %s\n' "$@"; }
worst=0
note() { [ "$worst" -ge "$1" ] || worst=$1; }

row result mutation "noticed by"
for i in "${!names[@]}"; do
  name=${names[$i]} file=${files[$i]} test=${tests[$i]}
  [[ $name == *"$WORD"* ]] || continue
  unbroken=$(verdict "$test")
  if [ "$unbroken" != passed ]; then
    row "ERROR" "$name" "$test: $unbroken without the mutation"
    sed 's/^/    /' "$MUTANTS/log" | tail -n 20
    note 2
    continue
  fi
  mutate "$i" "$TREE/$file"
  if git -C "$TREE" diff --quiet; then
    row "ERROR" "$name" "the expression changes nothing in $file"
    note 2
    continue
  fi
  broken=$(verdict "$test")
  case $broken in
    failed) row caught "$name" "${test##* }" ;;
    hung) row "hung" "$name" "${test##* } (after $LIMIT s)" ;;
    passed) row SURVIVED "$name" "not by ${test##* }"; note 1 ;;
    *) row ERROR "$name" "$broken"; sed 's/^/    /' "$MUTANTS/log" | tail -n 20; note 2 ;;
  esac
  git -C "$TREE" checkout --quiet -- .
done
exit $worst
