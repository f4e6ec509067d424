#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""An ext4 image from a tree.

The tree is laid out in a folder under fakeroot, which remembers owners, modes, devices and attributes that an ordinary user cannot set;
mke2fs sees them there, and copies them. What the clock of the host leaves in the image is replaced afterwards. The same tree makes the same
image, byte for byte.

As a program, which runs under fakeroot, this lays a tree out and calls mke2fs.
"""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import uuid

BLOCK = 4096
INODE = 256
SMALLEST = 1 << 20
# Of a group of blocks, for its bitmaps and its part of the tables.
GROUP = 32768
# Bytes of an inode that short attributes fit into.
INLINE_XATTRS = 80
LOST_AND_FOUND = 11


class Ext4Error(Exception):
    """A tool could not do its part."""


def epoch():
    """The time of what has none, and of changes of inodes: SOURCE_DATE_EPOCH, or the begin of 2024."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "1704067200")
    if not text.isdecimal():
        raise Ext4Error(f"SOURCE_DATE_EPOCH is '{text}', which is no number of seconds")
    return int(text)


def tools_environment(now):
    environment = dict(os.environ, E2FSPROGS_FAKE_TIME=str(now), LC_ALL="C")
    environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin"
    return environment


def run(command, now):
    """Runs a tool; its output is returned, or told when it fails."""
    try:
        result = subprocess.run(command, env=tools_environment(now), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise Ext4Error(f"{command[0]} is not installed; install the packages e2fsprogs and fakeroot") from None
    if result.returncode != 0:
        raise Ext4Error(f"{' '.join(command)} failed with status {result.returncode}:\n{result.stdout.strip()}")
    return result.stdout


def plan_of(tree):
    """The tree as a list that can be written down; a node that was there before is named by its first path."""
    plan, first = [], {}
    for path, node in [("/", tree.root), *tree.walk()]:
        if id(node) in first:
            plan.append({"path": path, "same": first[id(node)]})
            continue
        first[id(node)] = path
        plan.append({
            "path": path, "kind": node.kind, "mode": node.mode, "uid": node.uid, "gid": node.gid, "mtime": node.mtime,
            "content": node.content, "owned": node.owned, "target": node.target, "device": node.device,
            "xattrs": {name: value.hex() for name, value in sorted(node.xattrs.items())},
        })
    return plan


def blocks_of(plan):
    """How many blocks of data a tree takes, and how many inodes."""
    blocks, names = 0, {}
    for entry in plan:
        above, name = os.path.split(entry["path"])
        names[above] = names.get(above, 24) + 12 + len(os.fsencode(name))
        if "same" in entry:
            continue
        if entry["kind"] == stat.S_IFREG:
            size = os.path.getsize(entry["content"])
            blocks += -(-size // BLOCK) + (1 if size > GROUP * BLOCK else 0)
        elif entry["kind"] == stat.S_IFLNK and len(os.fsencode(entry["target"])) >= 60:
            blocks += 1
        elif entry["kind"] == stat.S_IFDIR:
            names.setdefault(entry["path"], 24)
        if sum(20 + len(name) + len(value) // 2 for name, value in entry["xattrs"].items()) > INLINE_XATTRS:
            blocks += 1
    # Folders fill their blocks by three quarters at least.
    blocks += sum(1 + size * 4 // 3 // BLOCK for size in names.values())
    return blocks, sum("same" not in entry for entry in plan)


def geometry(plan, free):
    """Blocks and inodes of an image with room for the tree and for so many bytes more."""
    data, inodes = blocks_of(plan)
    data += -(-free // BLOCK)
    inodes += LOST_AND_FOUND + inodes // 4 + 1024 + free // 16384
    blocks = data + -(-inodes * INODE // BLOCK) + 64
    journal = 1024 if blocks < 32768 else 4096 if blocks < 1 << 20 else 16384
    blocks += journal
    # Bitmaps, descriptors, and what mke2fs rounds up for each group.
    blocks += (blocks // GROUP + 1) * 24 + blocks // 100
    return -(-blocks // 256) * 256, inodes, journal * BLOCK >> 20


def lay_out(plan, root, now):
    """Makes the inodes of a plan below a folder. Returns a hash of all of it."""
    digest = hashlib.sha256()
    folders = []
    for entry in plan:
        path = root if entry["path"] == "/" else root + entry["path"]
        told = {key: value for key, value in entry.items() if key not in ("content", "owned")}
        digest.update(json.dumps(told, sort_keys=True).encode())
        if "same" in entry:
            os.link(root + entry["same"], path, follow_symlinks=False)
            continue
        kind, mtime = entry["kind"], now if entry["mtime"] is None else entry["mtime"]
        if kind == stat.S_IFDIR:
            if path != root:
                os.mkdir(path, 0o755)
            folders.append((path, mtime))
        elif kind == stat.S_IFLNK:
            os.symlink(entry["target"], path)
        elif kind == stat.S_IFREG:
            if entry["owned"]:
                os.rename(entry["content"], path)
            else:
                shutil.copyfile(entry["content"], path)
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        else:
            os.mknod(path, kind | 0o600, os.makedev(*entry["device"]) if entry["device"] else 0)
        os.lchown(path, entry["uid"], entry["gid"])
        for name, value in entry["xattrs"].items():
            os.setxattr(path, name, bytes.fromhex(value), follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(path, entry["mode"])
        if kind != stat.S_IFDIR:
            os.utime(path, (mtime, mtime), follow_symlinks=False)
    for path, mtime in reversed(folders):
        os.utime(path, (mtime, mtime))
    return digest.hexdigest()


def make(order):
    """Lays out the tree of an order and calls mke2fs, until there is room."""
    plan, now, label = order["plan"], order["epoch"], order["label"]
    if order["blocks"] is None:
        blocks, inodes, journal = geometry(plan, order["free"])
    else:
        blocks, inodes, journal = order["blocks"], None, None
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"capstream:{label}:{lay_out(plan, order['root'], now)}"))
    while True:
        if os.path.exists(order["image"]):
            os.unlink(order["image"])
        extended = f"root_owner=0:0,hash_seed={identity},lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", str(INODE), "-m", "0", "-L", label, "-U", identity, "-E", extended]
        if inodes is not None:
            command += ["-N", str(inodes), "-O", "^resize_inode"]
            if blocks > 2048:
                command += ["-J", f"size={journal}"]
        command += ["-d", order["root"], order["image"], str(blocks)]
        try:
            run(command, now)
            return
        except Ext4Error as error:
            full = any(text in str(error) for text in ("Could not allocate", "No space left", "no free"))
            if order["blocks"] is not None and full:
                raise Ext4Error(f"{blocks * BLOCK} bytes are too few for what is to be in the image; give it a larger size") from None
            if not full or blocks > order["most"]:
                raise
            blocks += blocks // 8 // 256 * 256 + 256


def write(tree, output, *, label, size=None, free=0, work=None):
    """Writes the image of a tree; of `size` bytes, or with `free` bytes beside what is in it."""
    now = epoch()
    plan = plan_of(tree)
    partial = output + ".partial"
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        root = os.path.join(folder, "root")
        os.mkdir(root)
        order = {"plan": plan, "epoch": now, "label": label, "root": root, "image": os.path.abspath(partial), "free": free,
                 "blocks": None if size is None else size // BLOCK, "most": 4 * geometry(plan, free)[0]}
        order_path = os.path.join(folder, "order")
        with open(order_path, "w", encoding="ascii") as file:
            json.dump(order, file)
        # Somebody's own fakeroot is as good, and there cannot be another in it.
        fake = [] if "FAKEROOTKEY" in os.environ else ["fakeroot", "--"]
        try:
            run([*fake, sys.executable, "-B", os.path.abspath(__file__), order_path], now)
            # mke2fs numbers inodes in the order in which it finds them.
            last = LOST_AND_FOUND + sum("same" not in entry for entry in plan) - 1
            finish(partial, tree.root, range(LOST_AND_FOUND, last + 1), now, folder)
        except Ext4Error:
            if os.path.exists(partial):
                os.unlink(partial)
            raise
    os.replace(partial, output)


def finish(image, root, inodes, now, folder):
    """Sets what mke2fs does not copy: the root's own inode, and the times at which inodes changed."""
    mtime = now if root.mtime is None else root.mtime
    commands = [f"sif <2> mode 0{stat.S_IFDIR | root.mode:o}", f"sif <2> uid {root.uid}", f"sif <2> gid {root.gid}",
                f"sif <2> mtime @{mtime}", f"sif <2> atime @{mtime}"]
    for inode in (2, *inodes):
        commands += [f"sif <{inode}> ctime @{now}", f"sif <{inode}> crtime @{now}"]
    for field in ("mtime", "atime"):
        commands.append(f"sif <{LOST_AND_FOUND}> {field} @{now}")
    script = os.path.join(folder, "commands")
    with open(script, "w", encoding="ascii") as file:
        file.write("\n".join(commands) + "\n")
    # debugfs reports what it could not do, but ends with 0: any line but its banner and the commands is an error.
    said = run(["debugfs", "-w", "-f", script, image], now).splitlines()
    wrong = [line for line in said if line and not line.startswith(("debugfs", "debugfs:"))]
    if wrong:
        raise Ext4Error(f"debugfs could not set times in {image}: {wrong[0]}")
    run(["e2fsck", "-f", "-n", image], now)


def main():
    with open(sys.argv[1], encoding="ascii") as file:
        order = json.load(file)
    try:
        make(order)
    except (Ext4Error, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
