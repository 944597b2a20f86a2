#!/bin/sh
# Install the node into a virtual environment: `install.sh FOLDER REQUIREMENT`, where REQUIREMENT is "." with extras.
# The Dockerfile and its test run this same file; PIP_ARGS goes to every pip install.
set -eu
folder=$1
requirement=$2

python3 -m venv "$folder"
pip() {
    # shellcheck disable=SC2086 # PIP_ARGS is a list
    "$folder/bin/python" -m pip --disable-pip-version-check install --constraint constraints.txt ${PIP_ARGS:-} "$@"
}
pip setuptools
pip --no-build-isolation "$requirement"
"$folder/bin/python" -m pip check
