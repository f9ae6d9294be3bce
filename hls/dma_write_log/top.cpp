#include "step.hpp"
HLS_TOP(dma_write_log);
