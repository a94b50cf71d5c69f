#!/bin/sh
# After the sources are in place: application.sh FOLDER. A user without rights, bytecode, and where it may write.
set -eu
cd "$1"

groupadd --gid 10001 solon
useradd --uid 10001 --gid 10001 --home-dir /scratch --no-create-home --shell /usr/sbin/nologin solon
mkdir -p /scratch
chown 10001:10001 /scratch
# what a checkout keeps in .solon; entrypoint.py makes the folder, since a volume may lie over /scratch
ln -s /scratch/solon .solon

sources="flows tasks constitutions deployments infra"
# shellcheck disable=SC2086  # a list of names
chmod -R a+rX $sources solon pyproject.toml LICENSE
# shellcheck disable=SC2086
.venv/bin/python -m compileall -q -j 0 $sources
