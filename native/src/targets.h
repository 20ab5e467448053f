// The instruction sets that this build holds, and the one in use.
#pragma once

#include "job.h"

namespace matcaps {

const Target& current_target();
bool set_target(const char* name);

template <class Real>
const Kernels<Real>& kernels();
template <>
inline const Kernels<float>& kernels<float>() {
  return current_target().single_precision;
}
template <>
inline const Kernels<double>& kernels<double>() {
  return current_target().double_precision;
}

}  // namespace matcaps
