#!/bin/sh
# Install the node into a virtual environment: `install.sh FOLDER LOCK...`, where each LOCK is the name of a file in
# requirements/. The Dockerfile and its test run this same file; PIP_ARGS goes to every pip install.
set -eu
folder=$1
shift
for lock in "$@"; do
    shift
    set -- "$@" --requirement "requirements/$lock.txt"
done

python3 -m venv "$folder"
pip() {
    # shellcheck disable=SC2086 # PIP_ARGS is a list
    "$folder/bin/python" -m pip --disable-pip-version-check install ${PIP_ARGS:-} "$@"
}
pip --require-hashes "$@"
pip --no-deps --no-build-isolation .
"$folder/bin/python" -m pip check
