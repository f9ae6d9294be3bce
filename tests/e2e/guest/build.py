#!/usr/bin/env python3
"""Makes the guest of the tests: Debian's kernel (the package is downloaded and unpacked, not installed) and an initial file system of
busybox, six modules and the checker.

  tests/e2e/guest/build.py DIR      leaves DIR/vmlinuz and DIR/initrd.gz; what is there already is taken as it is, unless checker or init are newer
"""
import glob
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = ["virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci", "block/virtio_blk"]


def kernel(directory):
    """the unpacked package of the kernel that Debian's linux-image-amd64 stands for"""
    if not glob.glob(f"{directory}/kernel/boot/vmlinuz-*"):
        depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=True).stdout
        name = re.search(r"linux-image-[0-9][^ \n]*", depends).group(0)
        os.makedirs(f"{directory}/kernel", exist_ok=True)
        subprocess.run(["apt-get", "download", name], cwd=directory, check=True, stdout=subprocess.DEVNULL, timeout=300)
        package = glob.glob(f"{directory}/{name}_*.deb")[0]
        subprocess.run(["dpkg", "-x", package, f"{directory}/kernel"], check=True)
        os.remove(package)
    return f"{directory}/kernel"


def current(directory):
    made = f"{directory}/initrd.gz"
    return os.path.exists(made) and os.path.exists(f"{directory}/vmlinuz") and all(os.path.getmtime(made) >= os.path.getmtime(f"{HERE}/{f}") for f in ("build.py", "checker.c", "init"))


def build(directory):
    if current(directory):
        return
    os.makedirs(directory, exist_ok=True)
    unpacked = kernel(directory)
    shutil.copy(glob.glob(f"{unpacked}/boot/vmlinuz-*")[0], f"{directory}/vmlinuz")
    root = f"{directory}/root"
    shutil.rmtree(root, ignore_errors=True)
    for d in ("bin", "lib", "dev", "proc", "sys"):
        os.makedirs(f"{root}/{d}")
    shutil.copy(shutil.which("busybox") or "/bin/busybox", f"{root}/bin/busybox")
    shutil.copy(f"{HERE}/init", f"{root}/init")
    os.chmod(f"{root}/init", 0o755)
    for m in MODULES:
        path = glob.glob(f"{unpacked}/lib/modules/*/kernel/drivers/{m}.ko*")[0]
        if not path.endswith(".ko"):
            raise SystemExit(f"{path}: a compressed module")
        shutil.copy(path, f"{root}/lib/")
    subprocess.run(["clang-19", "-O2", "-static", f"{HERE}/checker.c", "-o", f"{root}/bin/checker"], check=True)
    files = subprocess.run(["find", "."], cwd=root, capture_output=True, check=True).stdout
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=files, capture_output=True, check=True).stdout
    with open(f"{directory}/initrd.part", "wb") as f:
        subprocess.run(["gzip", "-1"], input=archive, stdout=f, check=True)
    os.rename(f"{directory}/initrd.part", f"{directory}/initrd.gz")
    shutil.rmtree(root)
    shutil.rmtree(unpacked)


if __name__ == "__main__":
    build(os.path.abspath(sys.argv[1]))
