#!/bin/sh
# Starts the benchmark from a kit that `npm run bench -- device --pack` made. Needs a Vulkan driver and /bin/sh; everything
# else is in the kit. Passes its arguments to the benchmark; `--probe` checks in seconds that the kit works.
#
# VK_DRIVER_FILES selects a driver's manifest. Without it the script searches the usual folders, then /usr/local/nvidia.
# DIFFCLASS_KIT_LOADER=packed uses the kit's Vulkan loader even if the system has one.
set -eu

case $0 in
*/*) here=${0%/*} ;;
*) here=. ;;
esac
here=$(CDPATH='' cd -- "$here" && pwd)
node=$here/bin/node

fail() {
  echo "run.sh: $1" >&2
  exit 1
}
prepend() { export LD_LIBRARY_PATH="$1${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; }

# Prints why the dynamic linker cannot load a library; nothing if it can. A library that loads and then crashes Node (a
# status above 127) counts as loadable: the benchmark reports the crash.
why_not() {
  status=0
  output=$(LD_PRELOAD=$1 "$node" --version 2>&1) || status=$?
  case $output in
  *'cannot be preloaded'*) echo "$1 is not in the linker's folders, or is for another kind of machine" ;;
  *) [ $status -eq 0 ] || [ $status -gt 127 ] || echo "$output" ;;
  esac
}
can_load() { [ -z "$(why_not "$1")" ]; }

[ -f "$node" ] || fail "expected Node at $node, got no file: unpack the whole archive again"
[ -x "$node" ] || chmod +x "$node" || fail "expected $node to be executable: run chmod +x on it"
"$node" --version >/dev/null 2>&1 || prepend "$here/lib/cxx"
started=$("$node" --version 2>&1) ||
  fail "the kit's Node does not start ($started): it needs Linux on x86-64 with glibc 2.34 or later"

# In containers NVIDIA's libraries may lie here without an entry in the linker's cache.
for folder in /usr/local/nvidia/lib /usr/local/nvidia/lib64; do
  if [ -d "$folder" ]; then prepend "$folder"; fi
done

if [ "${DIFFCLASS_KIT_LOADER:-system}" = packed ] || ! can_load libvulkan.so.1; then prepend "$here/lib/vulkan"; fi
loader=$(why_not libvulkan.so.1)
[ -z "$loader" ] || fail "no Vulkan loader can be loaded, not even the packed one ($loader)"
# NVIDIA's Vulkan driver needs X11 and the dispatch libraries of OpenGL, which machines without a display may lack.
if ! can_load libX11.so.6 || ! can_load libXext.so.6; then prepend "$here/lib/x11"; fi
if ! can_load libEGL.so.1 || ! can_load libGLX.so.0; then prepend "$here/lib/glvnd"; fi

# Prints the manifests in the folders that Vulkan loaders search, in the loaders' order.
standard() {
  for root in "${XDG_CONFIG_HOME:-${HOME:-}/.config}" /etc/xdg /usr/local/etc /etc \
    "${XDG_DATA_HOME:-${HOME:-}/.local/share}" /usr/local/share /usr/share; do
    for file in "$root"/vulkan/icd.d/$1; do
      if [ -f "$file" ]; then echo "$file"; fi
    done
  done
}
# Prints NVIDIA's manifest in /usr/local/nvidia, which may be up to four folders deep.
of_nvidia() {
  base=/usr/local/nvidia
  for file in $base/nvidia_icd.json $base/*/nvidia_icd.json $base/*/*/nvidia_icd.json \
    $base/*/*/*/nvidia_icd.json $base/*/*/*/*/nvidia_icd.json; do
    if [ -f "$file" ]; then
      echo "$file"
      return
    fi
  done
}

# Prints the library that a manifest names, as the Vulkan loader would open it.
library_of() {
  "$node" -p 'const path = process.argv[1], name = JSON.parse(require("fs").readFileSync(path, "utf8")).ICD.library_path;
name.includes("/") ? require("path").resolve(path, "..", name) : name' "$1" 2>/dev/null
}

chosen=${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}
if [ -z "$chosen" ] && [ -z "$(standard '*nvidia*.json')" ]; then
  chosen=$(of_nvidia)
  if [ -n "$chosen" ]; then
    export VK_DRIVER_FILES="$chosen" VK_ICD_FILENAMES="$chosen"
  fi
fi
newline='
'
if [ -n "$chosen" ]; then
  IFS=:
  set -f
  manifests=
  for file in $chosen; do manifests=$manifests$file$newline; done
  set +f
else
  manifests=$(standard '*nvidia*.json')$newline$(standard '*.json')
fi

works=
problems=
IFS=$newline
set -f
for manifest in $manifests; do
  if [ -d "$manifest" ]; then # VK_DRIVER_FILES may name folders; the loader looks into them.
    works=$manifest
    break
  fi
  if [ ! -f "$manifest" ]; then
    problem="$manifest does not exist"
  elif ! library=$(library_of "$manifest"); then
    problem="$manifest names no library"
  else
    problem=$(why_not "$library")
    if [ -z "$problem" ]; then
      works=$manifest
      break
    fi
    problem="the driver of $manifest cannot be loaded: $problem"
  fi
  problems=${problems:+$problems; }$problem
done
set +f
unset IFS

if [ -z "$works" ]; then
  [ -n "$problems" ] || problems='no manifest in the usual folders (such as /usr/share/vulkan/icd.d) or in /usr/local/nvidia'
  fail "no Vulkan driver was found: $problems. Install the graphics part of your GPU's driver, or set VK_DRIVER_FILES to its manifest (a JSON file)"
fi
case $problems in
*nvidia*) echo "run.sh: NVIDIA's driver is left out: $problems" >&2 ;;
esac

export DIFFCLASS_BENCH_ROOT="$here"
exec "$node" "$here/bench.js" "$@"
