# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A tree from a container image: an OCI layout, or what `docker save` writes, as a folder or as a tar archive."""

import contextlib
import hashlib
import json
import os
import tarfile

from . import archive
from .tree import ImageError, Tree, parts_of

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
LARGEST_JSON = 16 << 20
DEEPEST_INDEX = 8


class Store:
    """The files of an image by their paths in it."""

    def __init__(self, source, work):
        self.source = source
        self.work = work
        self.members = None
        self.file = None
        if not os.path.isdir(source):
            self.open_archive()

    def open_archive(self):
        # Layers are read in the order of the manifest, which is not that of the archive: it has to be one that can be read from any place.
        path = os.path.join(self.work, "image.tar")
        with archive.decompressed(self.source) as stream, open(path, "wb") as file:
            while piece := stream.read(1 << 20):
                file.write(piece)
        try:
            self.file = tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape")
            self.members = {"/".join(parts_of(member.name)): member for member in self.file}
        except archive.BROKEN as error:
            raise ImageError(f"{self.source} is no whole tar archive: {error}") from None

    def has(self, name):
        if self.members is not None:
            return name in self.members
        return os.path.isfile(os.path.join(self.source, name))

    @contextlib.contextmanager
    def open(self, name):
        """A file of the image; a link in an archive is followed within it."""
        parts = parts_of(name)
        name = "/".join(parts)
        if self.members is None:
            path = os.path.join(self.source, name)
            # A layout has no links, and none is to lead out of it.
            place = self.source
            for part in parts:
                place = os.path.join(place, part)
                if os.path.islink(place):
                    raise ImageError(f"'{name}' of {self.source} is refused: '{part}' is a symbolic link")
            try:
                with open(path, "rb") as file:
                    yield file
            except FileNotFoundError:
                raise ImageError(f"{self.source} is not whole: there is no '{name}' in it") from None
            return
        for _ in range(8):
            member = self.members.get(name)
            if member is None:
                raise ImageError(f"{self.source} is not whole: there is no '{name}' in it")
            if member.issym():
                # `docker save` names layers that are there twice so.
                name = os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
            elif member.islnk():
                name = "/".join(parts_of(member.linkname))
            else:
                break
        if not member.isreg():
            raise ImageError(f"'{name}' of {self.source} is no file")
        with self.file.extractfile(member) as file:
            yield file

    def json(self, name, digest=None):
        with self.open(name) as file:
            data = file.read(LARGEST_JSON + 1)
        if len(data) > LARGEST_JSON:
            raise ImageError(f"'{name}' of {self.source} has more than {LARGEST_JSON} bytes")
        if digest is not None:
            check_digest(digest, hash_of(digest, [data]), f"'{name}' of {self.source}")
        try:
            return json.loads(data)
        except ValueError as error:
            raise ImageError(f"'{name}' of {self.source} is no JSON: {error}") from None


def hash_of(digest, pieces):
    """The digest of data by the algorithm of another one."""
    algorithm = digest.partition(":")[0]
    if algorithm not in ("sha256", "sha512"):
        raise ImageError(f"the digest '{digest}' is refused: sha256 and sha512 are known")
    hasher = hashlib.new(algorithm)
    for piece in pieces:
        hasher.update(piece)
    return f"{algorithm}:{hasher.hexdigest()}"


def check_digest(wanted, found, what):
    if wanted != found:
        raise ImageError(f"{what} is damaged, or another one than was meant: its digest is {found} instead of {wanted}")


def blob(digest):
    """Where a layout has the blob with this digest."""
    if not isinstance(digest, str) or digest.count(":") != 1 or not all(c.isalnum() or c in ":+._-" for c in digest):
        raise ImageError(f"the digest '{digest}' is refused: it is none")
    algorithm, value = digest.split(":")
    return f"blobs/{algorithm}/{value}"


def matches(platform, wanted):
    parts = wanted.split("/")
    have = [platform.get("os"), platform.get("architecture"), platform.get("variant")]
    return parts == have[:len(parts)]


def choose(manifests, wanted, tag, where):
    """The one manifest of an index that is meant."""
    def name_of(manifest):
        annotations = manifest.get("annotations") or {}
        return annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name")

    if tag is not None:
        named = [m for m in manifests if tag in (name_of(m), (m.get("annotations") or {}).get("org.opencontainers.image.ref.name"))]
        if not named:
            names = sorted(filter(None, map(name_of, manifests)))
            raise ImageError(f"{where} has no image '{tag}'; it has: {', '.join(names) or 'none with a name'}")
        manifests = named
    fitting = [m for m in manifests if not m.get("platform") or matches(m["platform"], wanted)]
    if not fitting:
        known = sorted({"/".join(filter(None, (p.get("os"), p.get("architecture"), p.get("variant"))))
                        for p in (m["platform"] for m in manifests)})
        raise ImageError(f"{where} has no image for {wanted}; choose one of {', '.join(known)} by --platform")
    if len({m.get("digest") for m in fitting}) > 1 and tag is None:
        names = sorted(filter(None, map(name_of, fitting)))
        if len(names) > 1:
            raise ImageError(f"{where} has several images: choose one of {', '.join(names)} by --tag")
    return fitting[0]


def oci_layers(store, platform, tag):
    """The layers of an OCI layout, as (file, digest of the file, digest of its contents), and the configuration."""
    document = store.json("index.json")
    for depth in range(DEEPEST_INDEX):
        if "manifests" not in document:
            break
        chosen = choose(document["manifests"], platform, tag if depth == 0 else None, store.source)
        document = store.json(blob(chosen["digest"]), chosen["digest"])
    if "layers" not in document or "config" not in document:
        raise ImageError(f"{store.source} has no manifest of an image where its index leads")
    config = store.json(blob(document["config"]["digest"]), document["config"]["digest"])
    layers = [(blob(layer["digest"]), layer["digest"]) for layer in document["layers"]]
    return layers, config


def docker_layers(store, tag):
    """The same of what `docker save` has written."""
    images = store.json("manifest.json")
    if tag is not None:
        images = [image for image in images if tag in (image.get("RepoTags") or [])]
    if len(images) != 1:
        names = sorted(name for image in store.json("manifest.json") for name in image.get("RepoTags") or [])
        raise ImageError(f"{store.source} has {len(images)} images of that name; choose one of {', '.join(names) or '(none)'} by --tag")
    image = images[0]
    name = os.path.basename(image["Config"]).removesuffix(".json")
    # The file is called by its digest.
    config = store.json(image["Config"], f"sha256:{name}" if len(name) == 64 else None)
    return [(layer, None) for layer in image["Layers"]], config


class Digester:
    """Passes a stream on and hashes what is read of it."""

    def __init__(self, stream, algorithm):
        self.stream = stream
        self.hasher = hashlib.new(algorithm)

    def read(self, size=-1):
        piece = self.stream.read(size)
        self.hasher.update(piece)
        return piece


def apply(tree, store, name, digest, content_digest, pool):
    """Puts one layer over the tree."""
    where = f"the layer '{name}' of {store.source}"
    path = os.path.join(store.work, "layer")
    with store.open(name) as file, open(path, "wb") as copy:
        while piece := file.read(1 << 20):
            copy.write(piece)
    if digest is not None:
        with open(path, "rb") as file:
            check_digest(digest, hash_of(digest, iter(lambda: file.read(1 << 20), b"")), where)
    added, hidden, opaque = [], [], []
    with archive.decompressed(path) as stream:
        digester = Digester(stream, content_digest.partition(":")[0] if content_digest else "sha256")
        for member, contents in archive.entries(digester, where):
            parts = parts_of(member.name)
            if parts and parts[-1] == OPAQUE:
                opaque.append((parts[:-1], member.name))
            elif parts and parts[-1].startswith(WHITEOUT):
                name_below = parts[-1][len(WHITEOUT):]
                if name_below in ("", ".", ".."):
                    raise ImageError(f"the entry '{member.name}' of {where} is refused: it hides nothing that can be there")
                hidden.append((parts[:-1] + [name_below], member.name))
            elif member.islnk():
                added.append((member.name, None, member.linkname))
            else:
                added.append((member.name, archive.node_of(member, contents, pool), None))
        while digester.read(1 << 20):
            pass
    os.unlink(path)
    if content_digest is not None:
        algorithm = content_digest.partition(":")[0]
        check_digest(content_digest, f"{algorithm}:{digester.hasher.hexdigest()}", where)
    # What is hidden is of the layers below, wherever in this one that is said.
    for parts, entry in opaque:
        folder = tree.find(parts)
        if folder is not None and folder.is_directory:
            folder.children.clear()
        elif folder is not None:
            raise ImageError(f"the entry '{entry}' of {where} is refused: '{'/'.join(parts)}' is no folder")
    for parts, _ in hidden:
        tree.remove(parts)
    for entry, node, target in added:
        if node is None:
            tree.link(entry, target)
        else:
            tree.put(entry, node)


def is_container(source):
    """Whether the source looks like a container image."""
    names = ("index.json", "manifest.json")
    if os.path.isdir(source):
        return os.path.isfile(os.path.join(source, "oci-layout")) or (
            os.path.isfile(os.path.join(source, "manifest.json")) and not os.path.isdir(os.path.join(source, "etc")))
    found = set()
    with archive.decompressed(source) as stream:
        for member, _ in archive.entries(stream, source):
            name = member.name.removeprefix("./")
            if name in ("oci-layout", *names):
                found.add(name)
    return "manifest.json" in found or {"oci-layout", "index.json"} <= found


def read(source, work, pool, platform, tag):
    """What is in the image, and its configuration."""
    store = Store(source, work)
    try:
        if store.has("oci-layout") and store.has("index.json"):
            layers, config = oci_layers(store, platform, tag)
        else:
            layers, config = docker_layers(store, tag)
        contents = (config.get("rootfs") or {}).get("diff_ids") or []
        if contents and len(contents) != len(layers):
            raise ImageError(f"{source} has {len(layers)} layers, and its configuration names {len(contents)}")
        contents = contents or [None] * len(layers)
        tree = Tree()
        for (name, digest), content in zip(layers, contents):
            apply(tree, store, name, digest, content, pool)
        return tree, config.get("config") or {}
    except (KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{source} is no container image as OCI and Docker describe them: {error!r}") from None
