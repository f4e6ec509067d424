# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A tree from a tar archive: plain, or compressed by gzip, xz, bzip2 or zstd, whatever it is called."""

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import zlib

from .tree import ImageError, Node, Tree

XATTR = "SCHILY.xattr."
KINDS = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}
MAGIC = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open, b"BZh": bz2.open}
ZSTD = b"\x28\xb5\x2f\xfd"
# What is wrong with what is read, by whoever reads it.
BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError)


@contextlib.contextmanager
def decompressed(path):
    """The bytes of a file as a stream, decompressed if need be."""
    with open(path, "rb") as file:
        begin = file.read(6)
    if begin.startswith(ZSTD):
        try:
            process = subprocess.Popen(["zstd", "-dcq", "--", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError:
            raise ImageError(f"{path} is compressed by zstd, which is not installed; install the package zstd") from None
        with process:
            yield process.stdout
            # Whoever reads stops at the end of the archive, which may come before that of the stream.
            while process.stdout.read(1 << 20):
                pass
            said = process.stderr.read().decode(errors="replace").strip()
        if process.returncode != 0:
            raise ImageError(f"{path} cannot be decompressed: {said}")
        return
    opener = next((opener for magic, opener in MAGIC.items() if begin.startswith(magic)), open)
    with opener(path, "rb") as file:
        yield file


class Pool:
    """A folder for contents of files until they are in an image."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0

    def keep(self, source, size, entry):
        """A file with the next bytes of a stream."""
        self.count += 1
        path = os.path.join(self.folder, str(self.count))
        with open(path, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            if file.tell() != size:
                raise ImageError(f"the entry '{entry}' is cut off: {file.tell()} of {size} bytes are there")
        return path


def entries(stream, where):
    """The entries of an archive in a stream, each with a stream of its contents."""
    try:
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                yield member, archive.extractfile(member) if member.isreg() else None
    except BROKEN as error:
        raise ImageError(f"{where} is no whole tar archive: {error}") from None


def node_of(member, contents, pool):
    """The inode that an entry describes."""
    mode = stat.S_IMODE(member.mode)
    xattrs = {name[len(XATTR):]: os.fsencode(value) for name, value in member.pax_headers.items() if name.startswith(XATTR)}
    owner = (member.uid, member.gid, int(member.mtime))
    if member.isdir():
        return Node(stat.S_IFDIR, mode, *owner, xattrs=xattrs)
    if member.issym():
        return Node(stat.S_IFLNK, 0o777, *owner, target=member.linkname, xattrs=xattrs)
    if member.isreg():
        path = pool.keep(contents, member.size, member.name)
        return Node(stat.S_IFREG, mode, *owner, content=path, owned=True, xattrs=xattrs)
    if member.type in KINDS:
        device = (member.devmajor, member.devminor) if member.type != tarfile.FIFOTYPE else None
        return Node(KINDS[member.type], mode, *owner, device=device, xattrs=xattrs)
    raise ImageError(f"the entry '{member.name}' is refused: its type {member.type!r} is not known")


def add(tree, member, contents, pool):
    """Puts one entry into the tree."""
    if member.islnk():
        tree.link(member.name, member.linkname)
    else:
        tree.put(member.name, node_of(member, contents, pool))


def read(source, pool):
    """What is in the archive."""
    tree = Tree()
    with decompressed(source) as stream:
        for member, contents in entries(stream, source):
            add(tree, member, contents, pool)
    return tree
