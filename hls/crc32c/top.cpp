#include "step.hpp"
HLS_TOP(crc32c);
