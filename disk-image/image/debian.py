# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A tree from Debian packages and all that they depend on, by mmdebstrap.

The packages are unpacked and configured by dpkg itself: maintainer scripts run, in a folder that they take for the root, by fakechroot and
fakeroot. No right of root and no namespace is needed for that. So there are users, alternatives, and a cache of the loader, as after an
installation; services are not started.
"""

import io
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
    for parts in OF_THE_HOST:
        tree.remove(parts)
    if tree.find(["etc", "hosts"]) is None:
        tree.put("etc/hosts", Node(stat.S_IFREG, 0o644, content=pool.keep(io.BytesIO(HOSTS), len(HOSTS), "etc/hosts"), owned=True))
    return tree
