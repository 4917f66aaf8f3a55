#!/bin/sh
# Puts Pythons that are not on PATH into DIR/bin: pyenv's, and a Debian sid's 3.14 and 3.15.
#
#   tools/pythons.sh DIR     as root, with debootstrap and patchelf; then: PATH=DIR/bin:$PATH nox -s tests
set -eu
mkdir -p "$1/bin"
dir=$(cd "$1" && pwd)
if command -v pyenv >/dev/null; then
    root=$(pyenv root)/versions
    for python in "$root"/3.*/bin/python3.? "$root"/3.*/bin/python3.??; do
        ln -sf "$python" "$dir/bin/"
    done
fi
sid=$dir/sid
for version in 3.14 3.15; do
    [ ! -e "$dir/bin/python$version" ] || continue
    # A mirror that stands still has expired Release files before long.
    [ -e "$sid/done" ] || {
        rm -rf "$sid"
        debootstrap --variant=minbase --include=python3.14-venv,python3.15-venv sid "$sid" >&2
        touch "$sid/done"
    }
    # By its own C library it runs outside of its Debian, and so do its virtual environments.
    patchelf --set-interpreter "$sid/lib64/ld-linux-x86-64.so.2" --force-rpath \
        --set-rpath "$sid/usr/lib/x86_64-linux-gnu" "$sid/usr/bin/python$version"
    ln -s "$sid/usr/bin/python$version" "$dir/bin/"
done
