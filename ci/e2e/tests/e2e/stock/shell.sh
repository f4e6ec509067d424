# SPDX-License-Identifier: Apache-2.0 OR MIT
# What any shell of POSIX does. Run by each shell of the image; every line it prints is compared.
set -eu
cd "$(mktemp -d)"

# A pipe of four processes, and a loop in one of them.
seq 1 100 | while read -r n; do echo $((n * n)); done | grep -c '1$' | tr -d ' '

# Functions, local state of a subshell, recursion.
factorial() { if [ "$1" -le 1 ]; then echo 1; else echo $(($1 * $(factorial $(($1 - 1))))); fi; }
factorial 10
outer=kept
(outer=changed)
echo "$outer"

# Here-documents, with and without what is substituted.
cat <<EXPANDED
outer is $outer, six is $((2 * 3)), and $(echo "a command" | tr a-z A-Z)
EXPANDED
cat <<'PLAIN'
outer is $outer
PLAIN

# Status of commands, of pipes and of lists.
false || echo "status $?"
(exit 7) || echo "status $?"
sh -c 'kill -TERM $$' || echo "status $?"
true | false || echo "the last of the pipe"
if ! test -e nothing && [ -d . ]; then echo "no such file"; fi

# Patterns, parameters, cases, positional parameters.
touch b.txt a.txt c.dat
echo *.txt
path=/usr/lib/name.tar.gz
echo "${path##*/} ${path%.*} ${missing:-default} ${#path}"
set -- one "two three" four
for word in "$@"; do case $word in *\ *) echo "[$word] has a space" ;; f*) echo "[$word]" ;; esac; done
shift 2
echo "$# left: $*"

# Redirections, of several descriptors.
{ echo out; echo err >&2; } >out.txt 2>err.txt
cat err.txt out.txt
exec 3>three.txt
echo "to three" >&3
exec 3>&-
read -r line <three.txt
echo "$line"

# Jobs in the background are waited for; their statuses come.
(exit 3) &
first=$!
(exit 4) &
second=$!
wait $first || echo "first $?"
wait $second || echo "second $?"

# Traps: of a signal that the shell sends itself, of one that a child sends, and of the end.
trap 'echo "caught USR1"' USR1
kill -USR1 $$
(kill -USR1 $$)
trap 'echo "at the end, status $?"' EXIT

# Many processes, one after the other.
count=0
while [ $count -lt 200 ]; do
    /bin/true
    count=$((count + 1))
done
echo "$count processes"
exit 5
