#include "step.hpp"
HLS_TOP(registers);
