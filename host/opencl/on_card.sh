#!/bin/sh
# The OpenCL coder on an emulated card: on_card.sh KIND LUGE OPENCL_TEST. 77: that kind of card is not built.
environment=$("$2" card env "$1") || exit 77
eval "$environment"
SDACCEL_EM_RUN_DIR=$(mktemp -d) && export SDACCEL_EM_RUN_DIR && trap 'rm -rf "$SDACCEL_EM_RUN_DIR"' EXIT
cd "$SDACCEL_EM_RUN_DIR" || exit 1
setsid -w "$3" --gtest_filter='*GivesTheBytesThatIsalGives:*ACard*'
