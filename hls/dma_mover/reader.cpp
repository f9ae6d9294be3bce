#include "reader.hpp"
HLS_TOP(dma_reader);
