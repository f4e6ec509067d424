# SPDX-License-Identifier: Apache-2.0 OR MIT
"""What make-image puts into images, as debugfs sees it, and what it refuses.

    python3 -B -m unittest discover -t disk-image -s disk-image/image/tests

With CAPSTREAM_NO_MIRROR set, what needs a mirror of Debian is left out.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(FOLDER, "make-image")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
TIME = 1_000_000_000


def entry(name, data=None, **fields):
    """An entry of an archive and its contents; a folder when there are none and nothing else is said."""
    member = tarfile.TarInfo(name)
    member.mtime = TIME
    member.mode = 0o755 if data is None else 0o644
    member.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
    for field, value in fields.items():
        setattr(member, field, value)
    data = data.encode() if isinstance(data, str) else data
    member.size = len(data or b"")
    return member, data


def symlink(name, target):
    return entry(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777)


def hard_link(name, target):
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*entries, compress=bytes):
    """An archive of these entries."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data or b""))
    return compress(output.getvalue())


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Oci:
    """An OCI layout in the making."""

    def __init__(self):
        self.blobs = {}
        self.manifests = []

    def blob(self, data):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.blobs[digest(data)] = data
        return {"digest": digest(data), "size": len(data)}

    def image(self, *layers, platform=None, name=None, diff_ids=None, config=None):
        """Adds an image of these layers, archives."""
        contents = [gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer for layer in layers]
        document = {"rootfs": {"type": "layers", "diff_ids": diff_ids or [digest(layer) for layer in contents]}, "config": config or {}}
        manifest = {"schemaVersion": 2, "config": self.blob(document), "layers": [self.blob(layer) for layer in layers]}
        described = self.blob(manifest)
        if platform:
            described["platform"] = dict(zip(("os", "architecture", "variant"), platform.split("/")))
        if name:
            described["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.manifests.append(described)
        return described

    def files(self):
        index = json.dumps({"schemaVersion": 2, "manifests": self.manifests}).encode()
        files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index}
        for name, data in self.blobs.items():
            files["blobs/" + name.replace(":", "/")] = data
        return files


def docker_save(*layers, tags=("app:latest",)):
    """The files of an archive that `docker save` writes."""
    config = json.dumps({"rootfs": {"diff_ids": [digest(layer) for layer in layers]}, "config": {"Cmd": ["/bin/app"], "Env": ["A=b"]}}).encode()
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": list(tags), "Layers": names}]
    return {"manifest.json": json.dumps(manifest).encode(), name: config, **dict(zip(names, layers))}


class ImageTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="test-make-image.")
        self.addCleanup(shutil.rmtree, self.folder)
        self.count = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        return path

    def write_files(self, name, files):
        """A folder with these files."""
        for inside, data in files.items():
            self.write(f"{name}/{inside}", data)
        return self.path(name)

    def call(self, *words, **variables):
        self.count += 1
        image = self.path(f"{self.count}.img")
        environment = dict(os.environ, PATH=PATH, **variables)
        result = subprocess.run([sys.executable, "-B", TOOL, "-o", image, *words], env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        return image, result

    def make(self, *words, **variables):
        """An image that is made, and whole."""
        image, result = self.call(*words, **variables)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.said = result.stderr
        subprocess.run(["e2fsck", "-f", "-n", image], env=dict(os.environ, PATH=PATH), stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=True)
        return image

    def make_of_tar(self, *entries):
        return self.make("--from", self.write("source.tar", tar(*entries)))

    def refused(self, *words, says):
        """Nothing is made, and the error says all of this."""
        image, result = self.call(*words)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertTrue(result.stderr.startswith("error: "), result.stderr)
        self.assertNotIn("Traceback", result.stderr)
        for text in says:
            self.assertIn(text, result.stderr)
        self.assertFalse(os.path.exists(image))
        self.assertFalse(os.path.exists(image + ".partial"))

    def debugfs(self, image, command):
        result = subprocess.run(["debugfs", "-R", command, image], env=dict(os.environ, PATH=PATH), stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, check=True)
        return result.stdout.decode(errors="surrogateescape")

    def stat(self, image, path):
        """What an inode is: type and mode, owner, links, mtime, and its number; None when there is none."""
        text = self.debugfs(image, f'stat "{path}"')
        if "Inode:" not in text:
            return None
        found = {
            "inode": int(re.search(r"Inode: (\d+)", text)[1]), "type": re.search(r"Type: (.*?)\s+Mode", text)[1],
            "mode": int(re.search(r"Mode:\s+(\d+)", text)[1], 8), "uid": int(re.search(r"User:\s+(\d+)", text)[1]),
            "gid": int(re.search(r"Group:\s+(\d+)", text)[1]), "links": int(re.search(r"Links: (\d+)", text)[1]),
            "mtime": int(re.search(r"mtime: (0x[0-9a-f]+)", text)[1], 16),
        }
        device = re.search(r"Device major/minor number: (\d+):(\d+)", text)
        if device:
            found["device"] = (int(device[1]), int(device[2]))
        link = re.search(r'Fast link dest: "(.*)"', text)
        if link:
            found["target"] = link[1]
        return found

    def assert_stat(self, image, path, **wanted):
        found = self.stat(image, path)
        self.assertIsNotNone(found, path)
        self.assertEqual({key: found.get(key) for key in wanted}, wanted, path)

    def content(self, image, path):
        return self.debugfs(image, f'cat "{path}"')

    def names(self, image, path="/"):
        return set(re.findall(r"/\d+/\d+/\d+/\d+/([^/]+)/", self.debugfs(image, f'ls -p "{path}"'))) - {".", ".."}


class Folders(ImageTest):
    def test_what_is_in_a_folder(self):
        self.write_files("source", {"bin/tool": "#!/bin/sh\n", "a b/it's \"quoted\"": "text", "two": "2"})
        os.chmod(self.path("source/bin/tool"), 0o4755)
        os.chmod(self.path("source/a b"), 0o700)
        os.link(self.path("source/two"), self.path("source/a b/also two"))
        os.symlink("../somewhere/else", self.path("source/bin/link"))
        os.symlink("x" * 100, self.path("source/long"))
        os.mkfifo(self.path("source/pipe"))
        os.chmod(self.path("source/pipe"), 0o620)
        os.utime(self.path("source/bin/tool"), (TIME, TIME))
        image = self.make("--from", self.path("source"))
        self.assert_stat(image, "/bin/tool", type="regular", mode=0o4755, uid=0, gid=0, mtime=TIME)
        self.assert_stat(image, "/a b", type="directory", mode=0o700)
        self.assert_stat(image, "/bin/link", type="symlink", target="../somewhere/else")
        self.assert_stat(image, "/pipe", type="FIFO", mode=0o620)
        self.assert_stat(image, "/two", links=2, inode=self.stat(image, "/a b/also two")["inode"])
        self.assertEqual(self.content(image, "/long"), "x" * 100)
        self.assertEqual(self.content(image, "/two"), "2")
        self.assertIn("it's \"quoted\"", self.names(image, "/a b"))
        # What the kernel mounts on is there.
        self.assertTrue({"dev", "proc", "sys", "tmp", "run", "cap"} <= self.names(image))
        self.assert_stat(image, "/tmp", mode=0o1777)

    def test_owners_can_be_kept(self):
        self.write_files("source", {"file": "x"})
        image = self.make("--from", self.path("source"), "--keep-owners")
        self.assert_stat(image, "/file", uid=os.getuid(), gid=os.getgid())

    def test_the_same_folder_makes_the_same_image(self):
        self.write_files("source", {f"d{n % 7}/f{n}": str(n) * n for n in range(300)})
        images = [self.make("--from", self.path("source")) for _ in range(2)]
        with open(images[0], "rb") as a, open(images[1], "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.write("source/d1/f1", "2")
        other = self.make("--from", self.path("source"))
        uuids = [re.search(r"UUID:\s+(\S+)", self.debugfs(image, "show_super_stats -h"))[1] for image in (images[0], other)]
        self.assertNotEqual(*uuids)

    def test_the_size_fits_or_is_as_asked(self):
        self.write_files("source", {"large": os.urandom(20 << 20), **{f"small/{n}": "x" for n in range(3000)}})
        tight = self.make("--from", self.path("source"), "--free", "0")
        self.assertLess(os.path.getsize(tight), 48 << 20)
        roomy = self.make("--from", self.path("source"), "--free", "100M")
        free = int(re.search(r"Free blocks:\s+(\d+)", self.debugfs(roomy, "show_super_stats -h"))[1])
        self.assertGreaterEqual(free * 4096, 100 << 20)
        exact = self.make("--from", self.path("source"), "--size", "64M")
        self.assertEqual(os.path.getsize(exact), 64 << 20)
        self.refused("--from", self.path("source"), "--size", "10M", says=["too few", "larger size"])

    def test_what_is_not_there_is_told(self):
        self.refused("--from", self.path("nothing"), says=["nothing is not there"])
        self.write("text", "This is no archive.\n" * 100)
        self.refused("--from", self.path("text"), says=["text", "tar archive"])


class Archives(ImageTest):
    def test_everything_that_an_archive_can_have(self):
        capability = bytes([1, 0, 0, 2, 0, 0x20, 0, 0]) + bytes(12)
        value = capability.decode("utf-8", "surrogateescape")
        image = self.make_of_tar(
            entry("./", mode=0o751, uid=0), entry("./etc/", uid=7, gid=8, mode=0o2750), entry("./etc/secret", "s", uid=1234, gid=70000, mode=0o640),
            hard_link("./etc/again", "./etc/secret"), symlink("./bin", "usr/bin"), entry("./dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("./dev/disk", type=tarfile.BLKTYPE, devmajor=254, devminor=300), entry("./pipe", type=tarfile.FIFOTYPE, mode=0o600),
            entry("./usr/bin/ping", "p", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": value, "SCHILY.xattr.user.note": "a b"}),
            entry("./usr/bin/n\udcffme", "name"))
        self.assert_stat(image, "/", mode=0o751)
        self.assert_stat(image, "/etc", mode=0o2750, uid=7, gid=8, mtime=TIME)
        self.assert_stat(image, "/etc/secret", mode=0o640, uid=1234, gid=70000, links=2)
        self.assertEqual(self.stat(image, "/etc/again"), self.stat(image, "/etc/secret"))
        self.assert_stat(image, "/bin", target="usr/bin")
        self.assert_stat(image, "/dev/null", type="character special", device=(1, 3), mode=0o666)
        self.assert_stat(image, "/dev/disk", type="block special", device=(254, 300))
        self.assert_stat(image, "/pipe", type="FIFO")
        self.assertIn("security.capability", self.debugfs(image, "ea_list /usr/bin/ping"))
        self.assertIn('"a b"', self.debugfs(image, "ea_get /usr/bin/ping user.note") + self.debugfs(image, "ea_list /usr/bin/ping"))
        subprocess.run(["debugfs", "-R", f"ea_get -f {self.path('value')} /usr/bin/ping security.capability", image],
                       env=dict(os.environ, PATH=PATH), stderr=subprocess.DEVNULL, check=True)
        with open(self.path("value"), "rb") as file:
            self.assertEqual(file.read(), capability)

    def test_compression_does_not_matter(self):
        plain = tar(entry("file", "x" * 100_000), entry("other", os.urandom(100)))
        images = []
        for command in (["cat"], ["gzip", "-n"], ["xz"], ["zstd", "-q"], ["bzip2"]):
            data = subprocess.run(command, input=plain, stdout=subprocess.PIPE, check=True).stdout
            with open(self.make("--from", self.write("source", data)), "rb") as file:
                images.append(file.read())
        self.assertEqual(len(set(images)), 1)
        for command in (["gzip", "-n"], ["xz"], ["zstd", "-q"]):
            data = subprocess.run(command, input=plain, stdout=subprocess.PIPE, check=True).stdout
            self.refused("--from", self.write("source", data[:len(data) // 2]), says=["source"])

    def test_hostile_paths_are_refused_and_named(self):
        for entries, named in (
                ([entry("../out", "x")], "../out"), ([entry("a/../../out", "x")], "a/../../out"), ([entry("/etc/passwd", "x")], "/etc/passwd"),
                ([symlink("way", "/"), entry("way/out", "x")], "way/out"), ([symlink("way", ".."), entry("way/out")], "way/out"),
                ([entry("file", "x"), entry("file/below", "x")], "file/below"), ([hard_link("link", "../../etc/passwd")], "../../etc/passwd"),
                ([symlink("way", "/etc"), hard_link("link", "way/passwd")], "link"), ([hard_link("link", "nothing")], "link"),
                ([entry("x" * 300, "x")], "x" * 300), ([entry("odd", "x", type=b"Z")], "odd")):
            with self.subTest(named):
                self.refused("--from", self.write("source.tar", tar(*entries)), says=["refused", f"'{named}'"])

    def test_a_later_entry_replaces_an_earlier_one(self):
        image = self.make_of_tar(entry("a", "1"), entry("a", "2"), entry("d"), entry("d/x", "x"), entry("d", mode=0o700), symlink("l", "d"), entry("l"), entry("l/y", "y"))
        self.assertEqual(self.content(image, "/a"), "2")
        self.assertEqual(self.content(image, "/d/x"), "x")
        self.assert_stat(image, "/d", mode=0o700)
        self.assertEqual(self.content(image, "/l/y"), "y")


class Containers(ImageTest):
    BASE = tar(entry("etc"), entry("etc/a", "a"), entry("etc/b", "b"), entry("opt"), entry("opt/old", "o"), entry("opt/deep/er", "d"), entry("gone", "g"))
    TOP = tar(entry("etc/.wh.a", ""), entry("opt/new", "n"), entry("opt/.wh..wh..opq", ""), entry(".wh.gone", ""), entry(".wh.never", ""), entry("etc/b", "B", mode=0o600),
              compress=gzip.compress)

    def assert_layered(self, image):
        self.assertEqual(self.names(image, "/etc"), {"b"})
        self.assertEqual(self.content(image, "/etc/b"), "B")
        # Opaque hides what is below it, not what is beside it, whichever comes first.
        self.assertEqual(self.names(image, "/opt"), {"new"})
        self.assertNotIn("gone", self.names(image))
        self.assertFalse([name for name in self.names(image) if name.startswith(".wh.")])

    def oci(self, *layers, **options):
        image = Oci()
        image.image(*layers, **options)
        return image

    def test_layers_and_whiteouts_of_a_layout(self):
        files = self.oci(self.BASE, self.TOP, config={"Entrypoint": ["/bin/app"], "Cmd": ["a b"], "Env": ["X=1"], "User": "me", "WorkingDir": "/srv"}).files()
        image = self.make("--from", self.write_files("layout", files))
        self.assert_layered(image)
        self.assertIn("--env X=1 --directory /srv --user me -- /bin/app 'a b'", self.said)
        archive = tar(*(entry(name, data) for name, data in files.items()))
        for data in (archive, gzip.compress(archive)):
            packed = self.make("--from", self.write("layout.tar", data))
            with open(image, "rb") as a, open(packed, "rb") as b:
                self.assertEqual(a.read(), b.read())

    def test_what_docker_saves(self):
        files = docker_save(self.BASE, gzip.decompress(self.TOP))
        archive = tar(*(entry(name, data) for name, data in files.items()))
        image = self.make("--from", self.write("saved.tar", archive))
        self.assert_layered(image)
        self.assertIn("--env A=b -- /bin/app", self.said)
        self.refused("--from", self.path("saved.tar"), "--tag", "other", says=["app:latest", "--tag"])

    def test_a_layer_that_is_there_once_may_be_a_link(self):
        files = docker_save(self.BASE, self.BASE)
        members = [entry(name, data) for name, data in files.items() if name != "1/layer.tar"]
        members.append(symlink("1/layer.tar", "../0/layer.tar"))
        image = self.make("--from", self.write("saved.tar", tar(*members)))
        self.assertEqual(self.content(image, "/gone"), "g")

    def test_the_platform_is_chosen(self):
        layout = Oci()
        for platform in ("linux/amd64", "linux/riscv64", "linux/arm/v7"):
            layout.image(tar(entry("which", platform)), platform=platform)
        inner = layout.blob({"schemaVersion": 2, "manifests": layout.manifests})
        layout.manifests = [{**inner, "annotations": {"org.opencontainers.image.ref.name": "latest"}}]
        source = self.write_files("layout", layout.files())
        self.assertEqual(self.content(self.make("--from", source), "/which"), "linux/amd64")
        for platform in ("linux/riscv64", "linux/arm/v7"):
            self.assertEqual(self.content(self.make("--from", source, "--platform", platform), "/which"), platform)
        self.refused("--from", source, "--platform", "linux/s390x", says=["linux/s390x", "linux/amd64, linux/arm/v7, linux/riscv64", "--platform"])

    def test_one_of_several_images_is_chosen(self):
        layout = Oci()
        for name in ("one", "two"):
            layout.image(tar(entry("which", name)), name=name)
        source = self.write_files("layout", layout.files())
        self.assertEqual(self.content(self.make("--from", source, "--tag", "two"), "/which"), "two")
        self.refused("--from", source, says=["one, two", "--tag"])
        self.refused("--from", source, "--tag", "three", says=["three", "one, two"])

    def test_what_is_damaged_is_refused(self):
        layout = self.oci(self.BASE, self.TOP)
        for name, data in list(layout.blobs.items()):
            damaged = dict(layout.files())
            damaged["blobs/" + name.replace(":", "/")] = data[:-1] + bytes([data[-1] ^ 1])
            with self.subTest(name):
                self.refused("--from", self.write_files("damaged", damaged), says=["damaged", name.partition(":")[2]])
        missing = dict(layout.files())
        missing.pop("blobs/" + digest(self.TOP).replace(":", "/"))
        shutil.rmtree(self.path("damaged"))
        self.refused("--from", self.write_files("damaged", missing), says=["not whole", digest(self.TOP).partition(":")[2]])
        wrong = self.oci(self.BASE, diff_ids=[digest(b"another")])
        self.refused("--from", self.write_files("wrong", wrong.files()), says=["damaged", digest(b"another")])

    def test_hostile_images_are_refused(self):
        for entries, named in (([entry("../out", "x")], "../out"), ([symlink("way", "/"), entry("way/out", "x")], "way/out"),
                               ([entry("a/../.wh.b", "")], "a/../.wh.b"), ([entry(".wh...", "")], ".wh...")):
            with self.subTest(named):
                files = self.oci(tar(*entries)).files()
                self.refused("--from", self.write_files("layout", files), says=["refused", f"'{named}'"])
                shutil.rmtree(self.path("layout"))
        # A symbolic link of a layer below is no way out either.
        files = self.oci(tar(symlink("etc", "/etc")), tar(entry("etc/passwd", "x"))).files()
        self.refused("--from", self.write_files("layout", files), says=["refused", "'etc/passwd'", "symbolic link 'etc'"])
        layout = self.oci(self.BASE)
        layout.manifests = [{"digest": "sha256:../../../secret", "size": 1}]
        self.refused("--from", self.write_files("digest", layout.files()), says=["refused", "sha256:../../../secret"])
        layout = self.oci(self.BASE)
        outside = self.write("outside", layout.blobs[digest(self.BASE)])
        source = self.write_files("link", layout.files())
        inside = self.path("link/blobs/" + digest(self.BASE).replace(":", "/"))
        os.unlink(inside)
        os.symlink(outside, inside)
        self.refused("--from", source, says=["refused", "symbolic link"])
        self.refused("--from", self.write_files("odd", {"oci-layout": "{}", "index.json": "[1]"}), says=["no manifest"])
        self.refused("--from", self.write_files("text", {"oci-layout": "{}", "index.json": "x"}), says=["index.json", "no JSON"])


@unittest.skipIf("CAPSTREAM_NO_MIRROR" in os.environ, "CAPSTREAM_NO_MIRROR is set")
class Debian(ImageTest):
    def test_packages_with_what_they_depend_on(self):
        image = self.make("--debian", "sqlite3,busybox,libblas3")
        self.assert_stat(image, "/bin", type="symlink", target="usr/bin")
        self.assert_stat(image, "/lib64", type="symlink", target="usr/lib64")
        self.assert_stat(image, "/usr/bin/sqlite3", mode=0o755, uid=0, gid=0)
        self.assert_stat(image, "/usr/bin/su", mode=0o4755)
        self.assert_stat(image, "/var/run", target="/run")
        self.assert_stat(image, "/var/mail", mode=0o2775, uid=0, gid=8)
        self.assert_stat(image, "/etc/ld.so.cache", type="regular")
        self.assertIn(":0:0:root:/root:/bin/bash\n", self.content(image, "/etc/passwd"))
        self.assertTrue({name for name in self.names(image, "/usr/lib/x86_64-linux-gnu") if name.startswith("libsqlite3.so")})
        # Alternatives, also those for libraries.
        self.assert_stat(image, "/usr/bin/awk", type="symlink", target="/etc/alternatives/awk")
        name = "libblas.so.3-x86_64-linux-gnu"
        self.assert_stat(image, "/usr/lib/x86_64-linux-gnu/libblas.so.3", type="symlink", target=f"/etc/alternatives/{name}")
        self.assert_stat(image, f"/etc/alternatives/{name}", type="symlink", target="/usr/lib/x86_64-linux-gnu/blas/libblas.so.3")
        # Of the machine that it was made on.
        self.assertIsNone(self.stat(image, "/etc/resolv.conf"))
        self.assertIsNone(self.stat(image, "/etc/hostname"))
        # Of no package among these.
        self.assertEqual(self.content(image, "/etc/hosts"), "127.0.0.1\tlocalhost\n")
        self.assert_stat(image, "/etc/hosts", mode=0o644, uid=0, gid=0)

    def test_a_package_that_is_not_there(self):
        # Of several it is told which.
        self.refused("--debian", "busybox,no-such-package-at-all", says=["bookworm", "Unable to locate package no-such-package-at-all"])


if __name__ == "__main__":
    unittest.main()
