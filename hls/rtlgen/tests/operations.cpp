#include "operations.hpp"
HLS_TOP(operations);
