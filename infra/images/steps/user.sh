#!/bin/sh
# A user without rights, and the one folder that it owns: user.sh FOLDER.
set -eu
groupadd --gid 10001 solon
useradd --uid 10001 --gid 10001 --home-dir "$1" --no-create-home --shell /usr/sbin/nologin solon
mkdir -p "$1"
chown 10001:10001 "$1"
