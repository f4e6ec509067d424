# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A tree from Debian packages and all that they depend on, by mmdebstrap.

The packages are unpacked and configured by dpkg itself: maintainer scripts run, in a folder that they take for the root, by fakechroot and
fakeroot. No right of root and no namespace is needed for that. So there are users, alternatives, and a cache of the loader, as after an
installation; services are not started.
"""

import io
import itertools
import os
import shutil
import stat
import subprocess

from . import archive
from .tree import ImageError, Node

# The host's, which mmdebstrap lends to the scripts.
OF_THE_HOST = (["etc", "resolv.conf"], ["etc", "hostname"])
# The package netbase writes this file, or who else installs Debian. Without it programs do not know `localhost`.
HOSTS = b"127.0.0.1\tlocalhost\n"


def read(packages, suite, mirror, work, pool, epoch):
    """What is there after an installation of the packages, beside what every Debian has."""
    for tool in ("mmdebstrap", "fakechroot", "fakeroot"):
        if shutil.which(tool) is None:
            raise ImageError(f"{tool} is not installed; it is needed for Debian packages: install the packages mmdebstrap, fakechroot and fakeroot")
    output = os.path.join(work, "debian.tar")
    command = ["mmdebstrap", "--mode=fakechroot", "--variant=essential", "--format=tar",
               f"--include={','.join(packages)}", suite, output]
    if mirror is not None:
        command.append(mirror)
    environment = dict(os.environ, SOURCE_DATE_EPOCH=str(epoch), TMPDIR=work, LC_ALL="C.UTF-8")
    environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin"
    result = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        # What it says about itself tells nobody which package it is about.
        lines = "\n".join([line for line in result.stdout.strip().splitlines() if not line.startswith("I: ")][-20:])
        raise ImageError(f"mmdebstrap could not install {', '.join(packages)} from {suite}:\n{lines}")
    tree = archive.read(output, pool)
    os.unlink(output)
    put_alternatives_back(tree)
    for parts in OF_THE_HOST:
        tree.remove(parts)
    if tree.find(["etc", "hosts"]) is None:
        tree.put("etc/hosts", Node(stat.S_IFREG, 0o644, content=pool.keep(io.BytesIO(HOSTS), len(HOSTS), "etc/hosts"), owned=True))
    return tree


def put_alternatives_back(tree):
    """Puts back links of alternatives that are missing.

    ldconfig takes away links to libraries that lead nowhere. What leads to /etc/alternatives does, seen from outside of the tree: fakechroot does not reach
    into a static program as ldconfig is.
    """
    known = tree.find(["var", "lib", "dpkg", "alternatives"])
    for master, node in sorted(known.children.items()) if known is not None and known.is_directory else ():
        if node.kind != stat.S_IFREG:
            continue
        with open(node.content, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
        # How it is chosen; the link; then a name and its link for each that follows this one, up to an empty line.
        block = list(itertools.takewhile(bool, lines[1:]))
        for name, link in zip([master, *block[1::2]], block[::2]):
            if tree.find(["etc", "alternatives", name]) is not None:
                put_link_back(tree, link, f"/etc/alternatives/{name}")


def put_link_back(tree, path, target):
    """Makes a symbolic link where nothing is."""
    parts = [part for part in path.split("/") if part]
    above = tree.root.children.get(parts[0])
    if above is not None and above.kind == stat.S_IFLNK:
        # A folder that is in /usr nowadays.
        parts = [*above.target.strip("/").split("/"), *parts[1:]]
    folder = tree.find(parts[:-1])
    if folder is not None and folder.is_directory and parts[-1] not in folder.children:
        folder.children[parts[-1]] = Node(stat.S_IFLNK, 0o777, target=target)
