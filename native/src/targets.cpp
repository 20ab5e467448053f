#include "targets.h"

#include <atomic>
#include <cstring>

extern "C" {
#if defined(__x86_64__)
extern const Target matcaps_target_baseline, matcaps_target_avx2, matcaps_target_avx512;
#elif defined(__aarch64__)
extern const Target matcaps_target_neon;
#else
extern const Target matcaps_target_baseline;
#endif
}

namespace matcaps {
namespace {

struct Candidate {
  const Target* target;
  bool (*runs_here)();
};

// The best first.
const Candidate candidates[] = {
#if defined(__x86_64__)
    {&matcaps_target_avx512,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
     }},
    {&matcaps_target_avx2, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
    {&matcaps_target_baseline, [] { return true; }},
#elif defined(__aarch64__)
    {&matcaps_target_neon, [] { return true; }},
#else
    {&matcaps_target_baseline, [] { return true; }},
#endif
};

std::atomic<const Target*> the_target{nullptr};

}  // namespace

const Target& current_target() {
  if (!the_target.load()) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    for (const Candidate& candidate : candidates) {
      if (!candidate.runs_here()) continue;
      the_target = candidate.target;
      break;
    }
  }
  return *the_target.load();
}

bool set_target(const char* name) {
  current_target();
  for (const Candidate& candidate : candidates) {
    if (std::strcmp(candidate.target->name, name) != 0 || !candidate.runs_here()) continue;
    the_target = candidate.target;
    return true;
  }
  return false;
}

}  // namespace matcaps
