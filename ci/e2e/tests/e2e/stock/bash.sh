# SPDX-License-Identifier: Apache-2.0 OR MIT
# What bash has beyond other shells.
set -euo pipefail
cd "$(mktemp -d)"

# Arrays, with numbers and with words as their indices.
list=(one "two three" four)
list+=(five)
echo "${#list[@]} ${list[1]} ${list[@]: -1}"
declare -A ages=([ada]=36 [alan]=41)
ages[grace]=85
for name in $(printf '%s\n' "${!ages[@]}" | sort); do echo "$name ${ages[$name]}"; done
unset 'list[0]'
echo "${!list[*]}"

# Process substitution, for reading and for writing.
diff <(printf 'a\nb\nc\n') <(printf 'a\nB\nc\n') || echo "differ: $?"
while read -r left right; do echo "$left-$right"; done < <(paste <(seq 1 3) <(seq 11 13))
echo hello | tee >(tr a-z A-Z >upper) >/dev/null
while [ ! -s upper ]; do :; done
cat upper

# Here-strings, patterns, arithmetic, case of letters.
read -r a b <<<"x y"
echo "$b$a"
[[ 2026-11-28 =~ ^([0-9]+)-([0-9]+) ]] && echo "${BASH_REMATCH[2]}/${BASH_REMATCH[1]}"
text="some words"
echo "${text^^} ${text/words/letters} ${text@Q}"
for ((i = 0, sum = 0; i < 1000; i++)); do ((sum += i)) || true; done
echo "$sum"
shopt -s extglob nullglob
touch file.{a,b,c}
echo !(*.b) none*

# Statuses of a whole pipe; a function that changes what it was given; mapfile; coprocesses.
false | true | (exit 3) || echo "pipe ${PIPESTATUS[*]}"
double() { local -n target=$1; target=$((target * 2)); }
number=21
double number
echo "$number"
mapfile -t lines < <(seq 5 9)
echo "${lines[*]}"
# What bash knows of a coprocess is gone with it, so this is kept.
coproc SORTER { sort -r; }
sorter=$SORTER_PID
exec {sorted}<&"${SORTER[0]}" {unsorted}>&"${SORTER[1]}" {SORTER[1]}>&-
printf '%s\n' 1 2 3 >&"$unsorted"
exec {unsorted}>&-
tr '\n' ' ' <&"$sorted"
wait "$sorter"
echo "coprocess $?"

# Jobs: several at once, and the status of each.
jobs=()
for status in 1 2 3; do
    (exit "$status") &
    jobs+=($!)
done
sum=0
for job in "${jobs[@]}"; do wait "$job" || ((sum += $?)); done
echo "statuses $sum"

# A trap of an error and of a debugger's step, and a time limit for a read.
set +e
trap 'echo "error in line of ${FUNCNAME[0]:-main}"' ERR
false
trap - ERR
mkfifo pipe
read -r -t 0.1 line <>pipe
[ $? -gt 128 ] && echo "timed out"
printf -v formatted '%05d|%-5s|%q' 42 ab "a b"
echo "$formatted"
