#!/usr/bin/env bash
# All that a ten-minute visit to a bare GPU machine needs: test, bench, train. No network, no installation: PyTorch,
# Triton and Lightning are those of the machine's Python; this repository is unpacked beside them.
#
#   benchmarks/gpu.sh RESULTS      writes logs and records into the folder RESULTS, below 16 MB
#
# Variables: PYTHON (python3), MATCAPS_DATA (a data root with smallnorb: trains on it), MATCAPS_COMMIT (for the records),
# MATCAPS_MINUTES (10), MATCAPS_SKIP (words: tests bench train). Parts have time limits and do not need one another; what
# a machine lacks is said in summary.txt and left out.
set -u
out=${1:?usage: benchmarks/gpu.sh RESULTS}
mkdir -p "$out" && out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 MPLBACKEND=Agg
unset TRITON_INTERPRET
[ -n "${MATCAPS_COMMIT:-}" ] || MATCAPS_COMMIT=$(git rev-parse HEAD 2>/dev/null || cat COMMIT 2>/dev/null || echo unknown)
export MATCAPS_COMMIT
summary=$out/summary.txt
started=$SECONDS
budget=$((${MATCAPS_MINUTES:-10} * 60))

say() { echo "[$((SECONDS - started)) s] $*" | tee -a "$summary"; }
has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }
skipped() { case " ${MATCAPS_SKIP:-} " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
left() { echo $((budget - (SECONDS - started))); }

# part NAME SECONDS COMMAND...: what remains of the visit is the upper limit
part() {
  local name=$1 limit=$2 status
  shift 2
  [ "$limit" -le "$(left)" ] || limit=$(left)
  if [ "$limit" -lt 10 ]; then say "$name: left out, no time"; return 1; fi
  say "$name: up to $limit s"
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  say "$name: exit status $status$([ $status -eq 124 ] && echo ' (out of time)')"
  tail -n 15 "$out/$name.log" | sed 's/^/    /' | tee -a "$summary"
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

# 1. Tests. Without pytest, the operator against the float64 reference at one size.
if skipped tests; then say "tests: not asked for"
elif has pytest; then
  part tests 150 "$python" -m pytest -q -x -p no:cacheprovider tests/routing/test_triton_values.py tests/routing/test_triton_torch.py
else
  say "tests: no pytest; one comparison with the reference instead"
  part tests 60 "$python" benchmarks/quick_check.py
fi
correct=$?

# 2. Benchmarks: no speed figure on a red test.
if skipped bench; then say "bench: not asked for"
elif [ $correct -ne 0 ] && ! skipped tests; then say "bench: left out, tests are red"
else part bench 240 "$python" -m benchmarks.bench_gpu --skip-tests --seconds 1 --output "$out"
fi

# 3. A training: smallNORB where it is, otherwise the images that come with matcaps.
if skipped train; then say "train: not asked for"
elif ! has lightning; then say "train: left out, Lightning is missing"
else
  recipe=quickstart
  [ -d "${MATCAPS_DATA:-/nonexistent}" ] && recipe=smallnorb
  part train "$(left)" "$python" benchmarks/gpu_train.py "$recipe" "$out/run" "$(left)"
fi

# 4. Below 16 MB: checkpoints go first, then whatever is largest.
find "$out" -name '*.ckpt' -delete 2>/dev/null
while [ "$(du -sk "$out" | cut -f1)" -gt 15000 ]; do
  largest=$(find "$out" -type f ! -name summary.txt -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
  [ -n "$largest" ] || break
  say "too large, removed: $largest"
  rm -f "$largest"
done
say "done: $(du -sk "$out" | cut -f1) KB in $out"
