#!/bin/sh
# Builds the program, static, and lays out all that is in the image:  build.sh OUT
#
# TARGETARCH (amd64, arm64) is what to build for, by default this machine's; PROFILE is Cargo's, by default `dist`.
# The Dockerfile runs this; so does a Debian machine with Rust.
set -eu
cd "$(dirname "$0")/../.."
out=$1
profile=${PROFILE:-dist}
native=$(dpkg --print-architecture)

case ${TARGETARCH:=$native} in
    amd64) target=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu ;;
    arm64) target=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu ;;
    *) echo "build.sh: no image for $TARGETARCH" >&2 && exit 1 ;;
esac

# The last link alone is static: it takes the C library in whole.
set -- --locked --profile "$profile" --bin cloudtrail-tls-exporter
built=${CARGO_TARGET_DIR:-target}
if [ "$TARGETARCH" != "$native" ]; then
    set -- "$@" --target "$target"
    built=$built/$target
    lower=$(echo "$target" | tr - _)
    upper=$(echo "$lower" | tr a-z A-Z)
    export "CARGO_TARGET_${upper}_LINKER=$gnu-gcc" "CC_$lower=$gnu-gcc" "AR_$lower=$gnu-ar"
fi
cargo rustc "$@" -- -C target-feature=+crt-static
program=$built/$profile/cloudtrail-tls-exporter

if readelf --program-headers "$program" | grep -q INTERP; then
    echo "build.sh: $program is not static" >&2 && exit 1
fi
rm -rf "$out"
deploy/docker/licenses.py "$out/rootfs/licenses" "$target"
deploy/docker/rootfs.sh "$program" "$out"
# Whether it runs, for root with nothing but what is in the image; of another architecture it cannot run here.
if [ "$TARGETARCH" = "$native" ]; then
    if [ "$(id -u)" = 0 ]; then
        chroot --userspec=65534:65534 "$out/rootfs" /usr/bin/cloudtrail-tls-exporter --version
    else
        "$program" --version
    fi
fi
