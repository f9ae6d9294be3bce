#include "constructs.hpp"
HLS_TOP(constructs);
