// The kernels for the emulator: what a routing's constants and "routing.cu" give, with a C function that launches by name.
#include "constants.h"

#include "routing.cu"

extern "C" int launch(const char* name, const Arguments* arguments, unsigned x, unsigned y, unsigned z, int threads,
                      size_t shared_bytes) {
#define TRY(kernel)                                                                   \
  if (std::strcmp(name, #kernel) == 0) {                                              \
    emulator::launch(kernel, *arguments, {x, y, z}, threads, shared_bytes);           \
    return 0;                                                                         \
  }
#if MATCAPS_CHILD_COMPETITION
  TRY(iterate_first) TRY(iterate_later) TRY(compete) TRY(iterate_back) TRY(compete_back)
#else
  TRY(route_windows) TRY(route_windows_back)
#endif
  TRY(sweep) TRY(gather)
  return 1;
}
