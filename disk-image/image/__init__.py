# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Root file systems as ext4 images, made by an ordinary user.

    tree       what is to be in an image: inodes by path, and which paths are refused
    folder     a tree from a folder
    archive    a tree from a tar archive
    container  a tree from a container image
    debian     a tree from Debian packages
    ext4       an image from a tree
"""
