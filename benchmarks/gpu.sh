#!/usr/bin/env bash
# All that a ten-minute visit to a bare GPU machine needs: compile, test, bench, train. No network, no installation:
# PyTorch, Triton and Lightning are those of the machine's Python; this repository is unpacked beside them:
#
#   git rev-parse HEAD >COMMIT; git archive --add-file=COMMIT HEAD | gzip >matcaps.tar.gz      here
#   tar -xzf matcaps.tar.gz && benchmarks/gpu.sh RESULTS      there; writes into the folder RESULTS, below 16 MB
#
# Training needs safetensors, platformdirs and Pillow, the tests pytest. What the machine may lack is carried along, as
# a folder "packages" in the unpacked one:
#
#   python3 -m pip install --target packages --no-deps --only-binary=:all: --python-version 3.12 \
#     --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 safetensors platformdirs pillow pytest pluggy iniconfig packaging pygments
#
# Variables: PYTHON (python3), MATCAPS_DATA (a data root with smallnorb: trains on it), MATCAPS_COMMIT (for the records),
# MATCAPS_MINUTES (10), MATCAPS_SKIP (words: compile tests bench train), TRITON_CACHE_DIR (kernels that are compiled,
# beside the machine's temporary files). Parts have time limits; what a machine lacks is said in summary.txt and left
# out. Triton takes some twenty seconds of a processor for one layer's kernels, so they are compiled side by side first.
set -u
out=${1:?usage: benchmarks/gpu.sh RESULTS}
mkdir -p "$out" && out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/src:$PWD:$PWD/packages${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 MPLBACKEND=Agg
unset TRITON_INTERPRET
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-${TMPDIR:-/tmp}/matcaps-triton-$(id -u)}
[ -n "${MATCAPS_COMMIT:-}" ] || MATCAPS_COMMIT=$(git rev-parse HEAD 2>/dev/null || cat COMMIT 2>/dev/null || echo unknown)
export MATCAPS_COMMIT
summary=$out/summary.txt
started=$SECONDS
budget=$((${MATCAPS_MINUTES:-10} * 60))

say() { echo "[$((SECONDS - started)) s] $*" | tee -a "$summary"; }
has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }
skipped() { case " ${MATCAPS_SKIP:-} " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
left() { echo $((budget - (SECONDS - started))); }
# upto SECONDS REST: so many seconds at most, and REST of the visit left for what comes after
upto() { local most=$(($(left) - $2)); [ "$most" -le "$1" ] || most=$1; echo "$most"; }

# part NAME SECONDS COMMAND...: what remains of the visit is the upper limit
part() {
  local name=$1 limit=$2 status
  shift 2
  [ "$limit" -le "$(left)" ] || limit=$(left)
  if [ "$limit" -lt 10 ]; then say "$name: left out, no time"; return 124; fi
  say "$name: up to $limit s"
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  say "$name: exit status $status$([ $status -eq 124 ] && echo ' (out of time)')"
  tail -n 15 "$out/$name.log" | sed 's/^/    /' | tee -a "$summary"
  return $status
}

# every test, some at a time on each processor: they compile hundreds of kernels; a warning is no failure here
tests() {
  "$python" -m pytest -q --collect-only -p no:cacheprovider tests/routing/test_triton_values.py \
    tests/routing/test_triton_torch.py tests/routing/test_laws.py | grep '::' >"$out/tests.txt"
  grep -v 'test_laws.py' "$out/tests.txt" >"$out/chosen.txt"
  grep 'test_laws.py.*triton' "$out/tests.txt" >>"$out/chosen.txt"
  xargs -d '\n' -n 8 -P "$jobs" "$python" -m pytest -q -W default -p no:cacheprovider <"$out/chosen.txt"
  local status=$?
  echo "$(wc -l <"$out/chosen.txt") tests asked for"
  return $status
}

: >"$summary"
say "commit $MATCAPS_COMMIT, $("$python" --version 2>&1)"
if ! has torch; then say "no torch for $python: nothing can be done"; exit 1; fi
"$python" - <<'PYTHON' 2>&1 | tee -a "$summary"
import importlib.util, torch
print("torch", torch.__version__, "cuda", torch.version.cuda)
print("gpu", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none that torch can use")
names = ("triton", "lightning", "torchmetrics", "safetensors", "platformdirs", "jsonargparse", "rich", "yaml", "filelock",
         "tensorboard", "matplotlib", "pytest", "PIL")
print("missing:", *(name for name in names if not importlib.util.find_spec(name)))
PYTHON
command -v nvidia-smi >/dev/null && nvidia-smi >"$out/nvidia-smi.txt" 2>&1

command -v cc gcc clang >/dev/null || say "no C compiler: Triton cannot build what launches its kernels"
"$python" -c 'import os, sysconfig; assert os.path.exists(sysconfig.get_paths()["include"] + "/Python.h")' 2>/dev/null ||
  say "no Python.h for $python: Triton cannot build what launches its kernels, unless it brings its own"
jobs=$(nproc) && [ "$jobs" -le 12 ] || jobs=12 # each has a context of some hundred MB on the GPU

recipe=quickstart
[ -d "${MATCAPS_DATA:-/nonexistent}" ] && recipe=smallnorb

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null || ! has triton; then
  say "no GPU that torch can use, or no Triton: left out are compile, tests and bench"
  MATCAPS_SKIP="${MATCAPS_SKIP:-} compile tests bench"
fi

# 1. The kernels of what is timed and trained, into Triton's cache.
if skipped compile; then say "compile: not asked for"
else
  trained=quickstart
  [ $recipe = smallnorb ] && trained=annealed-small
  part compile "$(upto 120 400)" "$python" -m benchmarks.warm_up paper-small:128 paper:128 $trained:32 paper-small:1 paper:1
fi

# 2. Tests: the operator against the float64 reference at one size, then, with pytest, all of them. Only what is red
# stands in the way of figures, not what had no time.
correct=0
if skipped tests; then say "tests: not asked for"
else
  part check "$(upto 90 300)" "$python" benchmarks/quick_check.py || correct=1
  if [ $correct -ne 0 ]; then say "tests: left out, the one comparison is red"
  elif has pytest; then
    export python out jobs
    export -f tests
    part tests "$(upto 160 270)" bash -c tests
    case $? in 0) ;; 124) say "tests: no failure, but not all were run" ;; *) correct=1 ;; esac
    grep -hE '^(FAILED|ERROR)|[0-9]+ (passed|failed)' "$out/tests.log" | sort | uniq -c | sort -rn | head -n 40 | tee -a "$summary"
    if grep -q '^FAILED\|^ERROR' "$out/tests.log"; then correct=1; fi
  else say "tests: no pytest; the one comparison has to do"
  fi
fi

# 3. Benchmarks: no speed figure on a red test.
if skipped bench; then say "bench: not asked for"
elif [ $correct -ne 0 ]; then say "bench: left out, tests are red"
else part bench "$(upto 200 110)" "$python" -m benchmarks.bench_gpu --skip-tests --seconds 1 --output "$out"
fi

# 4. A training: smallNORB where it is, otherwise the images that come with matcaps.
if skipped train; then say "train: not asked for"
elif ! has lightning; then say "train: left out, Lightning is missing"
else # what else it lacks, such as torchmetrics, the log says
  part train "$(left)" "$python" benchmarks/gpu_train.py "$recipe" "$out/run" "$(left)"
fi

# 5. Below 16 MB: checkpoints go first, then whatever is largest.
find "$out" -name '*.ckpt' -delete 2>/dev/null
while [ "$(du -sk "$out" | cut -f1)" -gt 15000 ]; do
  largest=$(find "$out" -type f ! -name summary.txt -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
  [ -n "$largest" ] || break
  say "too large, removed: $largest"
  rm -f "$largest"
done
say "done: $(du -sk "$out" | cut -f1) KB in $out"
