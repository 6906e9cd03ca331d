// All kernels in one module.
#include "attention.cu"
#include "elementwise.cu"
#include "head.cu"
#include "rms_norm.cu"
#include "rope.cu"
