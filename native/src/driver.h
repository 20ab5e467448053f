// One routing of a batch, cut into tasks.
#pragma once

#include "matcaps.h"

namespace matcaps {

int64_t state_size(const matcaps_problem& problem);
void forward(const matcaps_problem& problem);
void backward(const matcaps_problem& problem);

}  // namespace matcaps
