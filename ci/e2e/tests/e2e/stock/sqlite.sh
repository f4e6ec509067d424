# SPDX-License-Identifier: Apache-2.0 OR MIT
# A database on the disk of the cVM, filled by the statements of standard input; then several processes at once use its log.
set -eu
cd /var/tmp
sqlite3 data.db
for writer in 1 2 3; do
    for n in 1 2 3 4 5; do
        echo "insert into readings (sensor, value) values ('writer $writer', $n);"
    done | sqlite3 -cmd '.timeout 20000' data.db &
done
wait
sqlite3 data.db 'select count(*), sum(value) from readings where sensor like "writer %"; pragma integrity_check; pragma journal_mode'
# While one has it open, what others see is in the shared memory beside it.
sqlite3 data.db <<'SQL'
select count(*) from readings;
.shell ls data.db data.db-shm data.db-wal
SQL
