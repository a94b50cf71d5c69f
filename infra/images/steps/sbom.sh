#!/bin/sh
# What is installed, as CycloneDX JSON: sbom.sh ENVIRONMENT PYPROJECT FILE. Python's distributions with their licences;
# Debian's packages stand in the image's /var/lib/dpkg/status, which scanners read themselves.
set -eu
/build/tools/bin/cyclonedx-py environment "$1/bin/python" --pyproject "$2" --mc-type application \
    --output-reproducible --output-format JSON --validate --output-file "$3"
