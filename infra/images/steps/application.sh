#!/bin/sh
# After the sources are in place: application.sh FOLDER. Rights to read, bytecode, and where .solon is.
set -eu
cd "$1"

# what a checkout keeps in .solon; entrypoint.py makes the folder, since a volume may lie over /scratch
ln -s /scratch/solon .solon

sources="flows tasks constitutions deployments infra"
# shellcheck disable=SC2086  # a list of names
chmod -R a+rX $sources solon pyproject.toml LICENSE
# shellcheck disable=SC2086
.venv/bin/python -m compileall -q -j 0 $sources
