# Debian packages, by what needs them. Sourced by ./demo and ./check.
LUGE_BUILD_PACKAGES="clang-19 lld-19 cmake ninja-build ccache pkg-config flatbuffers-compiler libflatbuffers-dev
 libboost1.81-dev libboost-json1.81-dev libboost-system1.81-dev libisal-dev libsqlite3-dev libtoml11-dev libcli11-dev
 libspdlog-dev libfmt-dev libabsl-dev libmimalloc-dev liburing-dev libssl-dev libgtest-dev
 libxrt-dev uuid-dev ocl-icd-opencl-dev opencl-headers"
LUGE_RUN_PACKAGES="python3 jq fio libnbd-bin qemu-utils e2fsprogs libxrt1 unzip ocl-icd-libopencl1 pocl-opencl-icd"
LUGE_TEST_PACKAGES="libclang-rt-19-dev libbenchmark-dev procps man-db libnbd-dev nbdkit nbdkit-plugin-python python3-libnbd gnutls-bin
 openssl iproute2 qemu-system-x86 busybox-static cpio linux-perf libdpdk-dev"

# Those of the arguments that are not installed.
luge_missing() {
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

# luge_install MODE PACKAGES...: MODE is ask, yes or no. Says what it will do and how large that is.
luge_install() {
  mode=$1
  shift
  missing=$(luge_missing "$@" | tr '\n' ' ')
  [ -n "${missing// /}" ] || return 0
  if [ "$mode" = no ]; then
    echo "missing Debian packages: $missing" >&2
    echo "install them with: apt-get install --no-install-recommends $missing" >&2
    return 1
  fi
  apt-get update -qq || echo "warning: the package lists could not be refreshed" >&2
  echo "Debian packages to install: $missing"
  apt-get install --no-install-recommends --assume-no $missing 2>/dev/null | grep -E '^(Need to get|After this operation)' || true
  if [ "$mode" = ask ]; then
    printf 'Install them? [Y/n] '
    read -r answer
    case "$answer" in [nN]*) echo "nothing was installed" >&2; return 1 ;; esac
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
