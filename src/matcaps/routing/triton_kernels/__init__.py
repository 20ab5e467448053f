"""The kernels of the GPU path. Nothing here is imported before a routing asks for it: Triton is optional."""
