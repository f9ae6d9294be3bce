#include "step.hpp"
HLS_TOP(transposer);
