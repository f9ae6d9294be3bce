#include "writer.hpp"
HLS_TOP(dma_writer);
