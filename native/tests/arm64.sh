#!/bin/sh
# Cross-compiles the self-test for arm64 and runs its NEON code under QEMU: by itself, and its values beside those of
# this machine's portable code. Needs Debian's g++-aarch64-linux-gnu and qemu-user. Usage: native/tests/arm64.sh [folder]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-build/arm64}
mkdir -p "$build"
build=$(cd "$build" && pwd)
cat >"$build/toolchain.cmake" <<'EOF'
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
EOF
compile() {
  name=$1
  shift
  cmake -S "$here" -B "$build/$name" -DMATCAPS_SELFTEST=ON "$@" >"$build/$name.log"
  cmake --build "$build/$name" --parallel 2 >>"$build/$name.log"
}
arm64() { qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/neon/matcaps_selftest" "$@"; }

compile here
compile neon -DCMAKE_TOOLCHAIN_FILE="$build/toolchain.cmake"
"$build/here/matcaps_selftest" --write "$build/values" baseline
arm64 --compare "$build/values" neon
# the faster code of this machine, by the same bounds
for target in avx2 avx512; do
  feature=$(echo "$target" | sed 's/512/512bw/')
  if grep -qw "$feature" /proc/cpuinfo; then "$build/here/matcaps_selftest" --compare "$build/values" "$target"; fi
done
if [ "${MATCAPS_ARM64_LONG:-}" ]; then arm64 neon; fi # sizes, threads and repeated runs: minutes under QEMU
