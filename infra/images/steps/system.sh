#!/bin/sh
# Debian packages of an image: system.sh base|build|trainer|object-store. Run by the Dockerfiles as root.
set -eu

case "$1" in
    base) packages="python3 ca-certificates tini" ;;
    build) packages="python3-venv" ;;
    # triton compiles a small C program for each kernel that it launches, against Python's headers
    trainer) packages="gcc libc6-dev libpython3-dev" ;;
    # without what it recommends: that would bring init scripts, users and 200 MB
    object-store) packages="radosgw ceph-mon ceph-osd ceph-base ceph-common" ;;
    *) echo "system.sh: '$1' is no role; expected base, build, trainer or object-store" >&2; exit 2 ;;
esac

export DEBIAN_FRONTEND=noninteractive
apt-get -q update
# shellcheck disable=SC2086  # a list of names
apt-get -q install --yes --no-install-recommends $packages
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log
