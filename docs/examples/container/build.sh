#!/bin/sh
# build.sh [IMAGE]: an image of the server, made without an image registry. Needs `make images` before.
set -eu
image=${1:-vaka/server:1}
root=$(cd "$(dirname "$0")/../../.." && pwd)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$root/docs/examples/container/Dockerfile" "$context/"
# pip runs here, not in the image, so that nothing is fetched inside
"$root/.venv/bin/python" -m pip install -q --target "$context/site" -c "$root/constraints.txt" "$root[server,postgresql]"
# of Debian's packages the tables' engine needs one library more than the base image has
cp -L "$(/sbin/ldconfig -p | sed -n 's/.*libstdc++\.so\.6 .* => //p' | head -n 1)" "$context/libstdc++.so.6"
DOCKER_BUILDKIT=0 docker build -q -t "$image" "$context"
