#!/usr/bin/env bash
# python.sh IMAGE: a stand-in for python:3.13-slim where no registry can be reached. Debian trixie's smallest system
# with its Python 3.13. Needs root, mmdebstrap and podman.
set -euo pipefail
image=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates trixie "$work/root.tar"
mkdir "$work/root"
tar -C "$work/root" -xf "$work/root.tar"
# What only the building machine needs: whom it trusts. The Dockerfiles stay free of it.
if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
    install -m 644 /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\ntimeout = 180\n' >"$work/root/etc/pip.conf"
fi
# What the official image has and Debian has not: `python`, and a pip that may install.
ln -s python3 "$work/root/usr/bin/python"
rm -f "$work"/root/usr/lib/python3*/EXTERNALLY-MANAGED
rm -rf "$work"/root/var/lib/apt/lists/* "$work"/root/var/cache/apt/*
tar --numeric-owner -C "$work/root" -c . | podman import --quiet \
    --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'CMD ["python3"]' \
    --change 'LABEL netraven-keys.standin=1' \
    - "$image" >/dev/null
