#!/bin/sh
# Starts a kit (bench/device/pack.ts) in root folders that contain only glibc, libstdc++, dash and this machine's software
# driver lavapipe:
#   1. the driver in the usual folders: `run.sh ARGUMENTS` (default: --probe);
#   2. the driver in /usr/local/nvidia, where some containers have NVIDIA's, and no libstdc++: `run.sh --probe`;
#   3. no driver: run.sh fails with a message of one sentence.
#
#   test/package/kit-in-bare-root.sh ARCHIVE [ARGUMENTS for run.sh]
#
# Needs chroot and mounts, so run it as root, or with a kernel that allows user namespaces.
set -eu

if [ "${KIT_IN_NAMESPACE:-}" = '' ]; then
  # Mounts end with the namespace, so that removing the root here never reaches a mounted folder.
  root=$(mktemp -d)
  trap 'rm -rf --one-file-system "$root"' EXIT
  export KIT_IN_NAMESPACE="$root"
  if [ "$(id -u)" = 0 ]; then unshare --mount "$0" "$@"; else unshare --map-root-user --mount "$0" "$@"; fi
  exit
fi

base=$KIT_IN_NAMESPACE
archive=$1
shift
[ $# -gt 0 ] || set -- --probe

say() { echo "== $1"; }
milliseconds() { echo $(($(date +%s%N) / 1000000)); }
# Prints the libraries that a program or a library needs, as paths of this machine.
needed() { ldd "$1" | sed -n 's/^.*=> \(\/[^ ]*\).*$/\1/p'; }

driver=$(ldconfig -p | sed -n 's/^.*libvulkan_lvp\.so .*=> //p' | head -n 1)
[ -n "$driver" ] || driver=$(find /usr/lib -name libvulkan_lvp.so | head -n 1)
[ -n "$driver" ] || { echo 'lavapipe (libvulkan_lvp.so) is not installed: install mesa-vulkan-drivers' >&2; exit 1; }
version=$(sed -n 's/.*"api_version": "\(.*\)".*/\1/p' /usr/share/vulkan/icd.d/lvp_icd*.json | head -n 1)
manifest="{\"file_format_version\": \"1.0.0\", \"ICD\": {\"library_path\": \"libvulkan_lvp.so\", \"api_version\": \"$version\"}}"

# Creates a root folder. $1: its name; $2: the folder for the driver's libraries; $3: the folder for its manifest.
new_root() {
  root=$base/$1
  libraries=$root/usr/lib/x86_64-linux-gnu
  mkdir -p "$root/bin" "$root/usr/lib64" "$libraries" "$root/proc" "$root/dev" "$root/tmp"
  ln -s usr/lib "$root/lib"
  ln -s usr/lib64 "$root/lib64"
  cp -L /bin/dash "$root/bin/sh"
  cp -L /lib64/ld-linux-x86-64.so.2 "$root/usr/lib64/"
  # The parts of glibc that dash and the C++ library need, and those that are empty in newer releases.
  cxx=$(ldconfig -p | sed -n 's/^.*libstdc++\.so\.6 (libc6,x86-64).*=> //p' | head -n 1)
  for file in $(needed /bin/dash) $(needed "$cxx") "$cxx"; do cp -L "$file" "$libraries/"; done
  for name in libdl.so.2 libpthread.so.0 librt.so.1; do cp -L "${cxx%/*}/$name" "$libraries/"; done
  if [ -n "${2:-}" ]; then
    mkdir -p "$root$2" "$root$3"
    for file in "$driver" $(needed "$driver"); do
      # The root already has glibc and libstdc++.
      [ -f "$libraries/${file##*/}" ] || cp -L "$file" "$root$2/"
    done
    echo "$manifest" >"$root$3/$4"
  fi
  mount --rbind /proc "$root/proc"
  mount --rbind /dev "$root/dev"
  start=$(milliseconds)
  tar -xf "$archive" -C "$root"
  say "$1: unpacked in $(($(milliseconds) - start)) ms; $(find "$root/bin" "$root/usr" -type f | wc -l) files besides the kit"
}
PATH=$PATH:/usr/sbin:/sbin
in_root() { env -i HOME=/ "$(command -v chroot)" "$root" /bin/sh /diffclass-bench-linux-x64/run.sh "$@"; }

new_root usual /usr/lib/x86_64-linux-gnu /usr/share/vulkan/icd.d lvp_icd.json
start=$(milliseconds)
in_root "$@"
say "usual: run.sh $* took $(($(milliseconds) - start)) ms"

new_root nvidia /usr/local/nvidia/lib64 /usr/local/nvidia/share/vulkan/icd.d nvidia_icd.json
rm "$libraries"/libstdc++.so.6
in_root --probe
say 'nvidia: the driver under /usr/local/nvidia and the packed libstdc++ work'

new_root none
if output=$(in_root --probe 2>&1); then
  echo "expected run.sh to fail without a driver, got: $output" >&2
  exit 1
fi
echo "$output"
case $output in
*'no Vulkan driver was found'*) say 'none: run.sh says what is missing' ;;
*) exit 1 ;;
esac
