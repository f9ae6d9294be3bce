#include "step.hpp"
HLS_TOP(card);
