#include "step.hpp"
HLS_TOP(job_queue);
