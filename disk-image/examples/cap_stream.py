#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Messages between cVMs through /cap/chN, with nothing but Python's standard library.

    cap_stream.py receive [COUNT]    the receiver, in one cVM
    cap_stream.py send [COUNT]       the sender, in another one

Without COUNT both go on for ever. With it they end after that many messages, and the receiver fails unless each was the one that comes next.
What the requests mean and which errors they have is in kmod-capstream/include/capstream.h.
"""

import ctypes
import fcntl
import itertools
import mmap
import os
import struct
import sys

KEY = "python"

# Numbers of requests, as <linux/ioctl.h> makes them.
NONE, WRITE, READ = 0, 1, 2
STREAM = 0xE4
# Address, length, sequence and sender of a message.
MESSAGE = struct.Struct("=QQQQ")
KEY_LEN = 10


def request(direction, number, size):
    return direction << 30 | size << 16 | STREAM << 8 | number


SET_SIZE = request(WRITE, 0x01, 4)
ADV = request(WRITE, 0x02, 4)
PRB = request(WRITE, 0x03, 4)
REG_BUF = request(WRITE, 0x05, 4)
WAIT_INFO = request(READ, 0x10, MESSAGE.size)
RESET = request(NONE, 0x11, 0)

_libc = ctypes.CDLL(None, use_errno=True)


def ioctl_address(device, number, address):
    """fcntl.ioctl() takes numbers of 32 bits only; an address is longer."""
    if _libc.ioctl(device, ctypes.c_ulong(number), ctypes.c_void_p(address)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def key_bytes(key):
    """A key as the driver reads it: that many bytes, zeroes behind it."""
    key = key.encode()
    if not 0 < len(key) <= KEY_LEN:
        raise ValueError(f"a key has 1 to {KEY_LEN} bytes")
    return key.ljust(KEY_LEN, b"\0")


class Endpoint:
    """A node /cap/chN. What is set up at it ends with the block."""

    def __init__(self, node):
        self.device = os.open(f"/cap/ch{node}", os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # When it returns nobody writes into the buffers any more.
        fcntl.ioctl(self.device, RESET)
        os.close(self.device)


class Receiver(Endpoint):
    """Messages that others send to a key. Senders write them straight into the buffers that are queued here."""

    def __init__(self, node, key, buffers=4, size=64 << 10):
        super().__init__(node)
        fcntl.ioctl(self.device, SET_SIZE, size)
        # Memory of its own, whose address does not change and which stays until the endpoint is reset.
        self.buffers = {}
        for _ in range(buffers):
            buffer = mmap.mmap(-1, size)
            address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
            self.buffers[address] = buffer
            ioctl_address(self.device, REG_BUF, address)
        fcntl.ioctl(self.device, ADV, key_bytes(key))

    def receive(self):
        """Waits for the next message."""
        info = bytearray(MESSAGE.size)
        fcntl.ioctl(self.device, WAIT_INFO, info)
        address, length, _sequence, _sender = MESSAGE.unpack(info)
        message = self.buffers[address][:length]
        # There is room for another one again.
        ioctl_address(self.device, REG_BUF, address)
        return message


class Sender(Endpoint):
    """Sends to a key; waits up to 30 s for somebody to receive there."""

    def __init__(self, node, key):
        super().__init__(node)
        fcntl.ioctl(self.device, PRB, key_bytes(key))

    def send(self, message):
        """One message, all or nothing; waits while the receiver has no buffer."""
        os.write(self.device, message)


def receive(numbers):
    with Receiver(1, KEY) as receiver:
        for number in numbers:
            text = receiver.receive().decode()
            print(f"{number}: {text}", flush=True)
            if text != f"message {number} from Python":
                sys.exit(f"cap_stream.py: this is not message {number}")


def send(numbers):
    # What the receiver took is not lost when this endpoint ends.
    with Sender(2, KEY) as sender:
        for number in numbers:
            sender.send(f"message {number} from Python".encode())


def main(arguments):
    roles = {"receive": receive, "send": send}
    if not 1 <= len(arguments) <= 2 or arguments[0] not in roles or not all(argument.isdecimal() for argument in arguments[1:]):
        sys.exit(__doc__.strip())
    numbers = range(int(arguments[1])) if len(arguments) == 2 else itertools.count()
    roles[arguments[0]](numbers)


if __name__ == "__main__":
    main(sys.argv[1:])
