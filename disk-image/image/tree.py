# SPDX-License-Identifier: Apache-2.0 OR MIT
"""What is to be in an image. Sources are not trusted: nothing of a path is looked up on the host."""

import os
import stat

# Where the kernel mounts file systems; the modes are those that they have in Debian.
MOUNT_POINTS = {"cap": 0o777, "dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}
LONGEST_NAME = 255
LONGEST_TARGET = 4095


class ImageError(Exception):
    """What is wrong with a source, where, and what to do about it."""


class Node:
    """An inode. A hard link is the same node at another path."""

    def __init__(self, kind, mode, uid=0, gid=0, mtime=None, *, content=None, owned=False, target=None, device=None, xattrs=None):
        self.kind = kind            # one of stat.S_IFDIR and the like
        self.mode = mode            # permissions
        self.uid = uid
        self.gid = gid
        self.mtime = mtime          # seconds since 1970; None: the time of the image
        self.content = content      # a file of the host with the contents of a regular file
        self.owned = owned          # whether that file may be moved into the image
        self.target = target        # of a symbolic link
        self.device = device        # (major, minor)
        self.xattrs = xattrs or {}  # bytes by name
        self.children = {} if kind == stat.S_IFDIR else None

    @property
    def is_directory(self):
        return self.kind == stat.S_IFDIR


def parts_of(name):
    """The names in a path of an archive; refuses one that could lead elsewhere."""
    if name.startswith("/"):
        raise ImageError(f"the entry '{name}' is refused: its path is absolute")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for part in parts:
        if part == "..":
            raise ImageError(f"the entry '{name}' is refused: '..' leads out of its folder")
        if len(os.fsencode(part)) > LONGEST_NAME:
            raise ImageError(f"the entry '{name}' is refused: a name in it is longer than {LONGEST_NAME} bytes")
        if "\0" in part:
            raise ImageError(f"the entry {name!r} is refused: there is a NUL byte in its path")
    return parts


class Tree:
    """A root folder and all that is in it."""

    def __init__(self):
        self.root = Node(stat.S_IFDIR, 0o755)

    def folder(self, parts, entry):
        """The folder with these names, made where it is missing; an entry may not go through anything else."""
        node = self.root
        for index, part in enumerate(parts):
            below = node.children.get(part)
            if below is None:
                below = node.children[part] = Node(stat.S_IFDIR, 0o755)
            if not below.is_directory:
                place = "/".join(parts[:index + 1])
                what = "the symbolic link" if below.kind == stat.S_IFLNK else "which is no folder,"
                raise ImageError(f"the entry '{entry}' is refused: its path goes through {what} '{place}'")
            node = below
        return node

    def find(self, parts):
        """The node at a path, or None; no link is followed."""
        node = self.root
        for part in parts:
            if node is None or not node.is_directory:
                return None
            node = node.children.get(part)
        return node

    def put(self, name, node):
        """Puts a node at the path of an entry. A folder that is there already keeps what is in it."""
        parts = parts_of(name)
        if node.kind == stat.S_IFLNK and len(os.fsencode(node.target)) > LONGEST_TARGET:
            raise ImageError(f"the entry '{name}' is refused: the target of the link has more than {LONGEST_TARGET} bytes")
        if not parts:
            if not node.is_directory:
                raise ImageError(f"the entry '{name}' is refused: the root is a folder")
            node.children = self.root.children
            self.root = node
            return
        above = self.folder(parts[:-1], name)
        old = above.children.get(parts[-1])
        if old is not None and old.is_directory and node.is_directory:
            node.children = old.children
        above.children[parts[-1]] = node

    def link(self, name, target):
        """Puts the node at the path of another entry at this one, too."""
        node = self.find(parts_of(target))
        if node is None or node.is_directory:
            raise ImageError(f"the entry '{name}' is refused: it is a hard link to '{target}', which is no file before it")
        self.put(name, node)

    def remove(self, parts):
        """Takes away what is at a path, if there is something."""
        above = self.find(parts[:-1])
        if parts and above is not None and above.is_directory:
            above.children.pop(parts[-1], None)

    def add_mount_points(self):
        """What the kernel mounts on has to be there on a disk that is only read."""
        for name, mode in MOUNT_POINTS.items():
            self.root.children.setdefault(name, Node(stat.S_IFDIR, mode))

    def walk(self):
        """Every path below the root with its node, sorted, folders before what is in them."""
        waiting = [("", self.root)]
        while waiting:
            path, node = waiting.pop()
            if path:
                yield path, node
            if node.is_directory:
                below = sorted(node.children.items(), key=lambda item: os.fsencode(item[0]), reverse=True)
                waiting.extend((f"{path}/{name}", child) for name, child in below)
