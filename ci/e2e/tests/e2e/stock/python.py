# SPDX-License-Identifier: Apache-2.0 OR MIT
"""What programs in Python do with the system below them. Each check prints one line when it holds; the first that does not ends it all."""

import ctypes
import hashlib
import json
import mmap
import multiprocessing
import os
import queue
import random
import resource
import select
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time


def threads():
    """Many threads, one lock, one queue, and memory of each one's own."""
    lock, total, tasks, local = threading.Lock(), [0], queue.Queue(), threading.local()

    def work():
        local.seen = 0
        while (task := tasks.get()) is not None:
            local.seen += 1
            with lock:
                total[0] += task
        assert local.seen >= 0

    workers = [threading.Thread(target=work) for _ in range(16)]
    for worker in workers:
        worker.start()
    for number in range(20000):
        tasks.put(number)
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()
    assert total[0] == sum(range(20000)), total


def processes():
    """Programs that are started: their streams, environment, folder, statuses, and limits of time."""
    done = subprocess.run(["/bin/sh", "-c", "cat; echo $WHO >&2; pwd; exit 3"], input=b"in\n", capture_output=True, env={"WHO": "me"}, cwd="/usr")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in\n/usr\n", b"me\n"), done
    first = subprocess.Popen(["seq", "1", "100000"], stdout=subprocess.PIPE)
    second = subprocess.Popen(["tail", "-n", "1"], stdin=first.stdout, stdout=subprocess.PIPE)
    first.stdout.close()
    assert second.communicate()[0] == b"100000\n" and first.wait() == 0
    try:
        subprocess.run(["sleep", "60"], timeout=0.1)
        raise AssertionError("sleep ended")
    except subprocess.TimeoutExpired:
        pass
    assert subprocess.run([sys.executable, "-c", "import os; os.abort()"]).returncode == -signal.SIGABRT
    try:
        subprocess.run(["/no/such/program"])
        raise AssertionError("it started")
    except FileNotFoundError:
        pass


def sockets():
    """A server in a thread and clients over the loopback, some data in both directions at once; the same over UNIX sockets."""
    payload = os.urandom(300000)

    def serve(listener):
        for _ in range(8):
            connection, _ = listener.accept()
            with connection:
                digest = hashlib.sha256()
                while data := connection.recv(65536):
                    digest.update(data)
                connection.sendall(digest.hexdigest().encode())

    path = os.path.join(tempfile.mkdtemp(), "socket")
    for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, path)):
        with socket.socket(family) as listener:
            listener.bind(address)
            listener.listen()
            server = threading.Thread(target=serve, args=(listener,))
            server.start()
            clients = [socket.socket(family) for _ in range(8)]
            for client in clients:
                client.connect(listener.getsockname())
            for client in clients:
                client.sendall(payload)
                client.shutdown(socket.SHUT_WR)
                with client.makefile("rb") as answer:
                    assert answer.read().decode() == hashlib.sha256(payload).hexdigest()
                client.close()
            server.join()
    near, far = socket.socketpair()
    poller = select.epoll()
    poller.register(near, select.EPOLLIN)
    assert poller.poll(0) == []
    far.send(b"x")
    assert poller.poll(10) == [(near.fileno(), select.EPOLLIN)]


def square(number):
    return os.getpid(), number * number


def children(shared, lock, times):
    for _ in range(times):
        with lock:
            shared.value += 1


def workers():
    """multiprocessing by fork: a pool, a queue, shared values under a lock."""
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        answers = pool.map(square, range(1000), chunksize=10)
    assert [answer for _, answer in answers] == [number * number for number in range(1000)]
    assert os.getpid() not in {pid for pid, _ in answers}
    shared, lock = context.Value("i", 0, lock=False), context.Lock()
    started = [context.Process(target=children, args=(shared, lock, 500)) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert shared.value == 2000 and all(process.exitcode == 0 for process in started), shared.value
    numbers = context.Queue()
    process = context.Process(target=lambda: [numbers.put(number) for number in range(1000)])
    process.start()
    assert [numbers.get() for _ in range(1000)] == list(range(1000))
    process.join()


def spawned():
    """multiprocessing by a new interpreter for each child, and of a server that forks."""
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        process = context.Process(target=theirs_send, args=(theirs,))
        process.start()
        assert ours.recv() == ("sent", 4)
        process.join()
        assert process.exitcode == 0


def theirs_send(pipe):
    pipe.send(("sent", 4))


def maps():
    """Files that are mapped, shared with a child and private; anonymous memory; resizing; protection."""
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        file.truncate(1 << 20)
        with mmap.mmap(file.fileno(), 1 << 20) as shared, mmap.mmap(file.fileno(), 1 << 20, access=mmap.ACCESS_COPY) as private:
            if (child := os.fork()) == 0:
                shared[5000:5005] = b"child"
                private[0:5] = b"child"
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            shared.flush()
            assert shared[5000:5005] == b"child" and private[5000:5005] == b"child" and private[0:5] == bytes(5)
            assert os.pread(file.fileno(), 5, 5000) == b"child"
            os.pwrite(file.fileno(), b"written", 9000)
            assert shared[9000:9007] == b"written"
            shared.resize(2 << 20)
            assert os.fstat(file.fileno()).st_size == 2 << 20
    with mmap.mmap(-1, 8 << 20) as memory:
        if (child := os.fork()) == 0:
            memory[0 :: 4096] = b"x" * 2048
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert memory[0 :: 4096] == b"x" * 2048
    # Without the right to write.
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), 4096, mmap.PROT_READ) == 0
        ctypes.memset(address, 1, 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def signals():
    """Handlers, timers, signals that end a wait, masks."""
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.pause()
    assert seen == [signal.SIGUSR1, signal.SIGALRM]
    # A computation is interrupted, too.
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    while len(seen) < 7:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.kill(os.getpid(), signal.SIGUSR2)
    assert signal.sigwait([signal.SIGUSR2]) == signal.SIGUSR2
    ended = []
    signal.signal(signal.SIGCHLD, lambda number, frame: ended.append(os.waitpid(-1, os.WNOHANG)))
    child = os.fork()
    if child == 0:
        os._exit(9)
    while not ended:
        time.sleep(0.01)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    assert ended[0][0] == child and os.waitstatus_to_exitcode(ended[0][1]) == 9


def forks():
    """Children that talk with their parent through pipes, and whose memory is a copy: generations of them, and many at once."""
    data = bytearray(4 << 20)
    pipes = []
    for number in range(20):
        reader, writer = os.pipe()
        if os.fork() == 0:
            data[number * 1000] = number + 1
            os.write(writer, b"%d %d" % (sum(data), os.getppid()))
            os._exit(number)
        os.close(writer)
        pipes.append(reader)
    answers = [os.read(reader, 100) for reader in pipes]
    assert answers == [b"%d %d" % (number + 1, os.getpid()) for number in range(20)], answers
    assert sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in pipes) == list(range(20))
    assert sum(data) == 0
    for reader in pipes:
        os.close(reader)
    reader, writer = os.pipe()
    depth = 0
    while depth < 30:
        child = os.fork()
        if child != 0:
            _, status = os.waitpid(child, 0)
            if depth == 0:
                break
            os._exit(os.waitstatus_to_exitcode(status))
        depth += 1
    else:
        os.write(writer, b"deep")
        os._exit(17)
    assert os.waitstatus_to_exitcode(status) == 17 and os.read(reader, 10) == b"deep"


def big():
    """A sort of a million numbers, JSON there and back, a large dictionary: memory that grows and is given back."""
    source = random.Random(1)
    numbers = [source.random() for _ in range(1000000)]
    ordered = sorted(numbers)
    assert all(ordered[at] <= ordered[at + 1] for at in range(0, 999999, 7)) and len(ordered) == 1000000
    document = {"list": numbers[:50000], "text": "é\u2028\U0001f40d" * 1000, "nested": [[]] * 100, "none": None}
    assert json.loads(json.dumps(document)) == document
    table = {str(number): number for number in range(300000)}
    assert sum(table.values()) == 299999 * 300000 // 2
    assert 10**5000 // 7**1000 % 1000003 == pow(10, 5000) // pow(7, 1000) % 1000003


def libraries():
    """Modules that are shared objects, with libraries of their own."""
    database = sqlite3.connect(":memory:")
    database.execute("create table t (a)")
    database.executemany("insert into t values (?)", ((number,) for number in range(10000)))
    assert database.execute("select sum(a) from t").fetchone() == (49995000,)
    assert ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED
    called = []
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    array = (ctypes.c_int * 100)(*reversed(range(100)))
    ctypes.CDLL(None).qsort(array, 100, 4, compare(lambda a, b: called.append(1) or a[0] - b[0]))
    assert list(array) == list(range(100)) and called


def files():
    """Folders with many files, links, renames, attributes, on the disk of the cVM."""
    folder = tempfile.mkdtemp(dir="/var/tmp")
    for number in range(500):
        with open(f"{folder}/{number}", "w", encoding="utf-8") as file:
            file.write(str(number) * 100)
    for number in range(0, 500, 2):
        os.rename(f"{folder}/{number}", f"{folder}/renamed {number}")
    os.symlink("1", f"{folder}/link")
    os.setxattr(f"{folder}/1", "user.name", b"value")
    assert os.getxattr(f"{folder}/link", "user.name") == b"value"
    assert len(os.listdir(folder)) == 501 and os.stat(f"{folder}/renamed 498").st_size == 300
    os.chmod(f"{folder}/3", 0o600)
    os.chown(f"{folder}/3", 1, 2)
    assert (os.stat(f"{folder}/3").st_uid, os.stat(f"{folder}/3").st_mode & 0o777) == (1, 0o600)
    shutil.rmtree(folder)
    assert not os.path.exists(folder)


if __name__ == "__main__":
    for check in (threads, processes, sockets, workers, spawned, maps, signals, forks, big, libraries, files):
        if len(sys.argv) > 1 and check.__name__ not in sys.argv[1:]:
            continue
        begin = time.monotonic()
        check()
        print(check.__name__, flush=True)
        print(f"{check.__name__}: {time.monotonic() - begin:.2f} s", file=sys.stderr, flush=True)
    print("done", flush=True)
