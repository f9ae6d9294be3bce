// FW_NOINIT: memory that a reset of the controller leaves as it is; 0 at power-up.
#pragma once
#ifdef __riscv
#define FW_NOINIT __attribute__((section(".noinit")))
#else
#define FW_NOINIT
#endif
