#include "sweep.cuh"
