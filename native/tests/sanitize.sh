#!/bin/sh
# Builds the self-test under each sanitizer and runs it, then under valgrind where there is one.
# Usage: native/tests/sanitize.sh [build folder]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-build/sanitize}
mkdir -p "$build"

# compile NAME SANITIZERS
compile() {
  cmake -S "$here" -B "$build/$1" -DMATCAPS_SELFTEST=ON -DMATCAPS_SANITIZE="$2" -DCMAKE_CXX_FLAGS=-g >"$build/$1.log"
  cmake --build "$build/$1" --target matcaps_selftest --parallel 2 >>"$build/$1.log"
}

for sanitizers in address,undefined thread; do
  compile "$sanitizers" "$sanitizers"
  echo "under $sanitizers:"
  # without address-space randomisation where the tool allows: the thread sanitizer needs a known layout
  if command -v setarch >/dev/null 2>&1 && setarch -R true 2>/dev/null; then
    setarch -R "$build/$sanitizers/matcaps_selftest"
  else
    "$build/$sanitizers/matcaps_selftest"
  fi
done

# It alone sees a read of memory that nothing was written to. It offers programs no AVX-512, which they then do without.
if command -v valgrind >/dev/null 2>&1; then
  compile valgrind ""
  echo "under valgrind:"
  # not the memory of threads that still sleep at the end: the pool outlives main by design
  valgrind --quiet --error-exitcode=1 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
    "$build/valgrind/matcaps_selftest"
else
  echo "no valgrind here: not run under it"
fi
