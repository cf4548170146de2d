#!/bin/sh
# Makes the Python environment of the tests: moto, a stand-in for AWS, and with it boto3, AWS's own client.
# Usage: python.sh FOLDER. Does nothing if the folder has it already; may be called many times at once.
set -eu
folder=$1
made="$folder/moto-5.2.5"
mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
[ -e "$made" ] && exit 0
rm -rf "$folder"
if ! python3 -m venv "$folder"; then
    rm -rf "$folder"
    echo "the tests need Python 3 with venv (Debian: apt-get install python3 python3-venv)" >&2
    exit 1
fi
install() {
    "$folder/bin/pip" install --quiet --disable-pip-version-check --retries 10 --timeout 60 'moto[server]==5.2.5' "$@"
}
# Another version of Python than that of Debian 12 may have no package of some of these versions.
install --constraint "$(dirname "$0")/python.txt" || {
    echo "again, with the newest versions of what moto needs" >&2
    install
}
touch "$made"
