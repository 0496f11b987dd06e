#!/usr/bin/env bash
# Unpacks the Mesa of Debian sid, whose software Vulkan driver has matrix units, with the C library that it needs into
# FOLDER, and writes FOLDER/run, which runs a program on that driver. Nothing is installed. It downloads about 70 MB.
#
#   test/mesa26.sh FOLDER
#   FOLDER/run node node_modules/vitest/vitest.mjs run --project device --pool=threads test/kernels/matrix.test.ts
#
# The program's process.execPath is the dynamic loader, so it can start no copy of itself: use worker threads.
set -euo pipefail

folder=$(realpath -m "${1:?usage: mesa26.sh FOLDER}")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirror that this machine installs from, whichever format its sources have.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | sed 's/#.*//' |
  grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 | tr -d ' ' || true)
[ -n "$mirror" ] || { echo 'mesa26.sh: expected a Debian mirror among the sources of apt, got none' >&2; exit 1; }
[ -f "$keyring" ] || { echo "mesa26.sh: expected Debian's keys in $keyring, got none: install debian-archive-keyring" >&2; exit 1; }

# A package manager of its own: its lists and downloads are in the folder, and it knows of no installed package.
mkdir -p "$folder"/{root,debs,apt/lists/partial,apt/cache/archives/partial}
echo "deb [signed-by=$keyring] $mirror sid main" > "$folder/apt/sources.list"
options=(
  -o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::Lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt/cache" -o Dir::State::status=/dev/null
  -o Acquire::Languages=none
)
apt-get "${options[@]}" -qq update

# All that the driver and Node need at run time; tools for installing packages are left out.
wanted=(mesa-vulkan-drivers libvulkan1 libstdc++6 libatomic1)
without=(--no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances)
packages=$(apt-cache "${options[@]}" depends --recurse "${without[@]}" "${wanted[@]}" | grep -E '^[a-z0-9]' |
  grep -vE '^(dpkg|debconf|cdebconf|perl|python|install-info|tar|adduser|passwd)|:' | sort -u)
cd "$folder/debs"
for package in $packages; do
  # Virtual packages have no file of their own.
  apt-get "${options[@]}" -qq download "$package" 2>/dev/null || echo "mesa26.sh: no package $package" >&2
done
for deb in *.deb; do dpkg-deb -x "$deb" "$folder/root"; done

found() { find "$folder/root" -name "$1" | head -1; }
loader=$(found 'ld-linux-*.so.*')
driver=$(found libvulkan_lvp.so)
[ -n "$loader" ] && [ -n "$driver" ] || { echo 'mesa26.sh: expected a loader and a driver among the packages, got none' >&2; exit 1; }
libraries=$(dirname "$(found libc.so.6)"):$(dirname "$driver")
sed "s#\"library_path\": *\"[^\"]*\"#\"library_path\": \"$driver\"#" "$(found 'lvp_icd*.json')" > "$folder/lvp.json"
cat > "$folder/run" <<RUN
#!/usr/bin/env bash
# Runs a program with the C library and the Mesa of this folder.
export VK_DRIVER_FILES=$folder/lvp.json VK_ICD_FILENAMES=$folder/lvp.json MESA_SHADER_CACHE_DIR=$folder/cache
export XDG_RUNTIME_DIR=\${XDG_RUNTIME_DIR:-$folder}
program=\$(command -v "\$1")
shift
exec $loader --library-path $libraries:\$(dirname "\$(realpath "\$program")") "\$program" "\$@"
RUN
chmod +x "$folder/run"
echo "mesa26.sh: $folder/run runs a program on $(basename "$(ls mesa-vulkan-drivers_*.deb | head -1)" .deb)"
rm -r "$folder/apt" "$folder/debs"
