#!/bin/sh
# Lays out what the image has beside the licences:  rootfs.sh PROGRAM OUT
#
# OUT/rootfs is the image's root; what is in OUT/state goes to /var/lib and belongs to the user.
set -eu
program=$1 root=$2/rootfs state=$2/state/cloudtrail-tls-exporter
install -d "$root/etc" "$root/usr/bin" "$root/var/lib" "$2/state"
install -m 0755 "$program" "$root/usr/bin/cloudtrail-tls-exporter"
# AWS is trusted by the system's certificates: the program has none of its own.
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo 'nonroot:x:65534:65534:nonroot:/:/nonexistent' >"$root/etc/passwd"
echo 'nonroot:x:65534:' >"$root/etc/group"
# A static program has these two ways to resolve names, and no others.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
# Of `demo`, and of SQLite when it sorts much; may be read-only.
install -d -m 1777 "$root/tmp"
install -d -m 0700 "$state"
# The same bytes give the same image.
find "$2" -depth -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH:-0}" {} +
