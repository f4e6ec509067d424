# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A tree from a folder."""

import os
import stat

from .tree import ImageError, Node, Tree

# Others are of the host: labels of its security modules, lists of its users.
XATTRS = ("user.", "security.capability")


def xattrs_of(path):
    """The extended attributes that mean something elsewhere."""
    try:
        names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(XATTRS)]
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    except OSError:
        # The file system has none.
        return {}


def read(source, keep_owners):
    """What is in the folder. Files of the calling user become root's, unless owners are kept."""
    tree = Tree()
    links = {}
    me = (os.getuid(), os.getgid())

    def node_of(path):
        status = os.lstat(path)
        uid, gid = status.st_uid, status.st_gid
        if not keep_owners:
            uid, gid = (0 if uid == me[0] else uid), (0 if gid == me[1] else gid)
        kind = stat.S_IFMT(status.st_mode)
        node = Node(kind, stat.S_IMODE(status.st_mode), uid, gid, int(status.st_mtime), xattrs=xattrs_of(path))
        if kind == stat.S_IFREG:
            if not os.access(path, os.R_OK):
                raise ImageError(f"{path} cannot be read; make it readable, or leave it out")
            node.content = path
        elif kind == stat.S_IFLNK:
            node.target = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            node.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            node = links.setdefault((status.st_dev, status.st_ino), node)
        return node

    root = node_of(source)
    if not root.is_directory:
        raise ImageError(f"{source} is no folder")
    tree.root = root
    waiting = [(source, root)]
    while waiting:
        path, node = waiting.pop()
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror}") from None
        for name in names:
            inside = os.path.join(path, name)
            child = node.children[name] = node_of(inside)
            if child.is_directory:
                waiting.append((inside, child))
    return tree
