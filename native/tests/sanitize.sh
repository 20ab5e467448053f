#!/bin/sh
# Builds the self-test under each sanitizer and runs it. Usage: native/tests/sanitize.sh [build folder]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-build/sanitize}
for sanitizers in address,undefined thread; do
  cmake -S "$here" -B "$build/$sanitizers" -DMATCAPS_SELFTEST=ON -DMATCAPS_SANITIZE="$sanitizers" >"$build.log"
  cmake --build "$build/$sanitizers" --target matcaps_selftest >>"$build.log"
  echo "under $sanitizers:"
  # without address-space randomisation where the tool allows: the thread sanitizer needs a known layout
  if command -v setarch >/dev/null 2>&1 && setarch -R true 2>/dev/null; then
    setarch -R "$build/$sanitizers/matcaps_selftest"
  else
    "$build/$sanitizers/matcaps_selftest"
  fi
done
