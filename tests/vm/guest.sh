#!/usr/bin/env bash
# Makes a guest of Debian's packages in DIR: vmlinuz and initrd.gz. Nothing is done when they are there and newer than CHECK.
#
#   tests/vm/guest.sh DIR CHECK     CHECK: the program guest-check
#
# The kernel is that of linux-image-amd64, unpacked and not installed; the initrd is busybox, six modules and CHECK.
set -eu
dir=$1
check=$2
[ ! -s "$dir/vmlinuz" ] || [ ! "$dir/initrd.gz" -nt "$check" ] || [ ! "$dir/initrd.gz" -nt "$0" ] || exit 0
mkdir -p "$dir"
work=$(mktemp -d "$dir/make-XXXXXX")
trap 'rm -rf "$work"' EXIT

if [ ! -s "$dir/vmlinuz" ]; then
  package=$(apt-cache depends linux-image-amd64 2>/dev/null | grep -o 'linux-image-[0-9][^ ]*-amd64' | head -1)
  [ -n "$package" ] || { apt-get update -qq && package=$(apt-cache depends linux-image-amd64 | grep -o 'linux-image-[0-9][^ ]*-amd64' | head -1); }
  [ -n "$package" ] || { echo "guest.sh: apt knows no kernel (linux-image-amd64)" >&2; exit 1; }
  (cd "$work" && { apt-get download -qq "$package" || { apt-get update -qq && apt-get download -qq "$package"; }; } >/dev/null 2>&1 && dpkg -x ./*.deb kernel) ||
    { echo "guest.sh: $package cannot be fetched" >&2; exit 1; }
  mkdir -p "$dir/modules"
  for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
    find "$work/kernel" -name "$m.ko" -exec cp {} "$dir/modules/" \;
  done
  cp "$work"/kernel/boot/vmlinuz-* "$dir/vmlinuz.part"
  mv "$dir/vmlinuz.part" "$dir/vmlinuz"
fi

root=$work/root
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/modules"
cp /bin/busybox "$root/bin/busybox"
cp "$check" "$root/bin/guest-check"
cp "$dir"/modules/*.ko "$root/modules/"
cat >"$root/init" <<'T'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do $b insmod /modules/$m.ko; done
while [ ! -b /dev/vda ]; do $b sleep 0.1; done
for word in $($b cat /proc/cmdline); do case $word in area=*) area=${word#area=} ;; pool=*) pool=${word#pool=} ;; esac; done
echo "guest up"
/bin/guest-check run /dev/vda $area $pool
echo "guest-check ended"
$b poweroff -f
T
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/initrd.part"
mv "$dir/initrd.part" "$dir/initrd.gz"
