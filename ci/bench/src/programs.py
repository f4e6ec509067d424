# SPDX-License-Identifier: Apache-2.0 OR MIT
"""What programs of Debian take, timed from inside: the same in a cVM and elsewhere. Prints one line of JSON."""

import json
import os
import statistics
import subprocess
import sys
import time

RUNS = 20
ROWS = 60_000


def timed(work, runs=RUNS):
    """The median of some runs, in nanoseconds."""
    times = []
    for _ in range(runs):
        begin = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - begin)
    return {"median_ns": statistics.median(times)}


def program(*words):
    """Starts a program by vfork and exec, and waits for its end."""
    def work():
        child = os.posix_spawn(words[0], words, os.environ)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{words}: it failed")
    return work


def forked():
    """A child of fork that ends at once."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


# After the example of SQLite's own speed test: rows one by one and by index, ranges, updates, deletions, a join, in a file.
SQL = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE one(number INTEGER, text TEXT);
BEGIN;
WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < {ROWS})
    INSERT INTO one SELECT n * 7919 % 1000003, printf('%d is number %d', n * 7919 % 1000003, n) FROM count;
COMMIT;
CREATE INDEX by_number ON one(number);
CREATE TABLE two(number INTEGER PRIMARY KEY, text TEXT);
INSERT INTO two SELECT number, text FROM one;
SELECT count(*), avg(number) FROM one WHERE text LIKE '%77%';
SELECT sum(length(one.text)) FROM one JOIN two USING (number);
""" + "".join(
    f"UPDATE one SET text = text || '{n}' WHERE number BETWEEN {n * 1000} AND {n * 1000 + 500};\n"
    f"INSERT INTO one VALUES ({n}, 'more of {n}');\n"
    f"SELECT count(*) FROM one WHERE number BETWEEN {n * 700} AND {n * 700 + 900};\n"
    for n in range(400)
) + """
DELETE FROM one WHERE number % 3 = 0;
VACUUM;
SELECT count(*) FROM one;
"""


def sqlite():
    """A database in memory of the kernel's."""
    path = "/dev/shm/speed.db"
    for name in (path, path + "-wal", path + "-shm"):
        if os.path.exists(name):
            os.unlink(name)
    subprocess.run(["/usr/bin/sqlite3", path], input=SQL, text=True, stdout=subprocess.DEVNULL, check=True)


print(json.dumps({
    "python": timed(program("/usr/bin/python3", "-c", "pass")),
    "busybox": timed(program("/bin/busybox", "true"), 100),
    "fork": timed(forked, 100),
    "sqlite": timed(sqlite, 3),
}))
