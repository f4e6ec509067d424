# SPDX-License-Identifier: Apache-2.0 OR MIT
# Pipelines of coreutils over standard input, some megabytes of lines "NUMBER WORD NUMBER". Host and cVM have to print the same.
set -eu
export LC_ALL=C
cd "$(mktemp -d)"
cat >input
wc input
sha256sum <input
sort input | sha256sum
sort -k2,2 -k3,3n input | sha256sum
sort -S 256K -T . -n input | md5sum
cut -d ' ' -f 2 input | sort | uniq -c | sort -k1,1nr -k2,2 | head -n 5
tr a-z A-Z <input | sha1sum
tac input | rev | cut -c 1-10 | sha256sum
split -l 20000 input part. && cat part.* | cmp - input && ls part.* | wc -l
dd if=input of=copy bs=64K conv=fsync 2>/dev/null
cmp input copy
dd if=copy of=copy bs=1 count=10 seek=1000000 conv=notrunc 2>/dev/null
sha256sum <copy
dd if=input bs=1M skip=1 count=1 iflag=fullblock 2>/dev/null | base64 -w 0 | base64 -d | sha512sum
dd if=/dev/zero bs=1M count=16 2>/dev/null | sha256sum
od -An -tx1 -v -w32 input | head -n 20000 | b2sum
tail -c 100000 input | fold -w 33 | nl | sha256sum
factor 1234567891011 600851475143
shuf -i 1-1000 | sort -n | cksum
truncate -s 1M sparse && stat -c %s sparse && du -k sparse | cut -f 1
cp -a copy other && ln other link && stat -c '%h %a' link && mv other moved && rm moved link
tee one two <input >/dev/null && cmp one two && expr 6 \* 7 && numfmt --to=iec 1048576
