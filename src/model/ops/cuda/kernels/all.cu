// All kernels in one module.
#include "activations.cu"
#include "attention.cu"
#include "elementwise.cu"
#include "head.cu"
#include "rms_norm.cu"
#include "rope.cu"
#include "rows.cu"
