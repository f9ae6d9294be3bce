#include "step.hpp"
HLS_TOP(erasure_coder);
