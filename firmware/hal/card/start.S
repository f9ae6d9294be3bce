# First instruction, image header, start, sleep, traps. Nothing of the image changes while it runs (there is no .data), so a reset of the
# controller needs no other memory than the image itself.
  .option arch, +zicsr
  .section .start, "ax"
  .option norvc
  j fw_start
  .word 0x4957464C            # "LFWI"
  .word FW_VERSION
  .word fw_image_bytes
  .word fw_sleep
  .option rvc

  .text
  .globl fw_start
fw_start:
  .option push
  .option norelax
  la gp, __global_pointer$
  .option pop
  la sp, fw_stack_top
  la t0, fw_trap_entry
  csrw mtvec, t0
  la t0, fw_bss_begin
  la t1, fw_bss_end
1:
  bgeu t0, t1, 2f
  sw zero, 0(t0)
  addi t0, t0, 4
  j 1b
2:
  call fw_main
3:
  j 3b

  .globl fw_sleep
fw_sleep:
  wfi
  ret

  .balign 4
fw_trap_entry:
  la sp, fw_stack_top
  csrr a0, mcause
  csrr a1, mepc
  call fw_trap
  j fw_start
