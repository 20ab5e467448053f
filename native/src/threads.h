// Work on several threads: tasks are taken in order from a counter, whoever comes first.
#pragma once

#include <stdint.h>

#include <functional>

#include "matcaps.h"

namespace matcaps {

void set_fork(matcaps_fork fork);

// Runs task(0, worker) ... task(tasks - 1, worker) on at most this many threads; `worker`, below threads and tasks, says on
// which, for working memory. Denormals count as zero inside tasks: assignments that small change nothing, and cost a
// hundredfold. Rethrows the first exception of a task.
typedef std::function<void(int64_t task, int64_t worker)> Task;
void parallel(int threads, int64_t tasks, const Task& task);

}  // namespace matcaps
