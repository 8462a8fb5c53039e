#!/bin/sh
# Installs the system pieces that Roadbed's build and tests need and this machine lacks. Asks nothing, may be run
# again, and says in one line what it installs and why. Debian and Ubuntu; elsewhere it names what is missing.
# With --peers also what the checks against foreign software need, with --peers-full what Bitcoin Core is built with.
set -eu

missing=""
need() { # package, why
    missing="$missing $1"
    echo "setup: installing $1: $2"
}

has_vulkan_loader() { ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'; }

has_vulkan_driver() {
    [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && return 0
    for folder in /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d /etc/vulkan/icd.d \
        "${XDG_DATA_HOME:-$HOME/.local/share}/vulkan/icd.d"; do
        for file in "$folder"/*.json; do
            [ -e "$file" ] && return 0
        done
    done
    return 1
}

PATH="$PATH:/sbin:/usr/sbin:$HOME/.cargo/bin"

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: no cargo found: install a Rust toolchain (1.95 or newer), then run this again" >&2
    exit 1
fi
command -v cc >/dev/null 2>&1 || need gcc "SQLite and ring are built from C"
[ -e /usr/include/stdio.h ] || need libc6-dev "C headers for SQLite and ring"
has_vulkan_loader || need libvulkan1 "the Vulkan loader, through which the GPU is reached"
has_vulkan_driver || need mesa-vulkan-drivers "no Vulkan driver found; this one also runs without a GPU"
command -v python3 >/dev/null 2>&1 || need python3 "pip fetches the default model"
python3 -m pip --version >/dev/null 2>&1 || need python3-pip "pip fetches the default model"
if [ "${1:-}" = --peers ] || [ "${1:-}" = --peers-full ]; then
    command -v node >/dev/null 2>&1 || need nodejs "runs the foreign mining pool and its node"
    command -v npm >/dev/null 2>&1 || need npm "fetches them"
    command -v c++ >/dev/null 2>&1 || need g++ "their big numbers are built from C++"
    command -v make >/dev/null 2>&1 || need make "the same"
    command -v capnp >/dev/null 2>&1 || need capnproto "the foreign Stratum V2 pool is built with it"
    [ -e /usr/include/capnp/c++.capnp ] || need libcapnp-dev "the same"
fi
if [ "${1:-}" = --peers-full ]; then
    command -v cmake >/dev/null 2>&1 || need cmake "Bitcoin Core is built with it"
    command -v ninja >/dev/null 2>&1 || need ninja-build "the same"
    command -v pkg-config >/dev/null 2>&1 || need pkg-config "the same"
    [ -e /usr/include/boost/version.hpp ] || need libboost-dev "the same"
    [ -e /usr/include/event2/event.h ] || need libevent-dev "the same"
fi

[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: this is no Debian or Ubuntu; install by hand:$missing" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1 || ! sudo -n true 2>/dev/null; then
        echo "setup: needs root once; run: sudo apt-get install -y$missing" >&2
        exit 1
    fi
    as_root="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086  # the list of packages is meant to be split
if ! { $as_root apt-get update -q && $as_root apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    echo "setup: the installation failed; see the lines above" >&2
    exit 1
fi
rm -f "$log"
