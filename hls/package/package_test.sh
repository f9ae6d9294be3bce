#!/bin/sh
# The script that packs the card for Vitis does what the sources say, and each fault put into it is noticed.
#   package_test.sh CARD.sv
card_sv=$1
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
./package.py --card "$card_sv" --out "$work/good" || exit 1
tclsh check_xo.tcl "$work/good/package_xo.tcl" ../registers/card.h || exit 1
verilator --lint-only -Wall -Wno-UNUSEDSIGNAL -Wno-DECLFILENAME -Wno-SYMRSVDWORD --top-module luge_card "$work/good/luge_card.sv" "$work/good/card.sv" || { echo "FAIL luge_card.sv is not sound"; exit 1; }

count=0
noticed() {  # FILE SED-EXPRESSION WORDS: with the fault in FILE the check must fail and say WORDS
  rm -rf "$work/bad" && cp -r "$work/good" "$work/bad" && sed -i "$2" "$work/bad/$1"
  cmp -s "$work/good/$1" "$work/bad/$1" && { echo "FAIL '$2' changes nothing in $1"; exit 1; }
  if said=$(tclsh check_xo.tcl "$work/bad/package_xo.tcl" ../registers/card.h 2>&1); then echo "FAIL not noticed: $2"; exit 1; fi
  case "$said" in *"$3"*) count=$((count + 1)) ;; *) echo "FAIL '$2' is noticed without '$3': $said"; exit 1 ;; esac
}
noticed package_xo.tcl 's/address_offset 0x028/address_offset 0x02c/' 'register ring_base is at 0x02c'
noticed package_xo.tcl '/add_register timeout/,/description/d' 'register timeout is not described'
noticed package_xo.tcl 's/add_register seat /add_register chair /' 'register seat is not described'
noticed package_xo.tcl 's/add_register seat /add_register status /' 'register status is added twice'
noticed package_xo.tcl 's/set_property size 64 /set_property size 96 /' '96 bits'
noticed package_xo.tcl 's/card\.sv\] \[file/cards.sv] [file/' 'there is no file'
noticed package_xo.tcl 's/-busif m_axi_read/-busif m_axi_reed/' 'no interface m_axi_reed'
noticed package_xo.tcl '/-busif m_axi_write/d' 'm_axi_write has no clock'
noticed package_xo.tcl 's/-clock ap_clk/-clock aclk/' 'no clock of the card'
noticed package_xo.tcl 's/value READ_ONLY/value READ_WRITE/' 'm_axi_read is READ_ONLY'
noticed package_xo.tcl 's/MAX_BURST_LENGTH/MAX_BURST/' 'no parameter MAX_BURST'
noticed package_xo.tcl 's/value m_axi_write \[ipx::add_register_parameter/value m_axi_read [ipx::add_register_parameter/' 'which memory m_axi_write needs'
noticed package_xo.tcl 's/sdx_kernel_type rtl/sdx_kernel_type hls/' "sdx_kernel_type is not rtl"
noticed package_xo.tcl 's/user_managed$/ap_ctrl_hs/' 'must be user_managed'
noticed package_xo.tcl 's/-kernel_name luge_card/-kernel_name card/' 'the kernel is not the top'
noticed package_xo.tcl '/^ipx::save_core/d' 'before the core is saved'
noticed package_xo.tcl 's/^ipx::save_core/ipx::safe_core/' 'unknown command'
noticed package_xo.tcl 's/-ip_directory/-ip_dir/' 'no option -ip_dir'
noticed luge_card.sv 's/m_axi_read_araddr/m_axi_read_address/' 'm_axi_read has no araddr'
noticed luge_card.sv '0,/\[63:0\] m_axi_job_araddr/s//[31:0] m_axi_job_araddr/' 'port m_axi_job_araddr is'
noticed luge_card.sv 's/^\(.*\)output wire interrupt/\1output wire irq/' 'no port interrupt'
noticed luge_card.sv 's/^module luge_card/module card_top/' 'no module luge_card'

# A card with other ports is refused by the generator itself.
sed 's/wire irq$/wire interrupt/' "$card_sv" >"$work/other.sv"
if said=$(./package.py --card "$work/other.sv" --out "$work/other" 2>&1); then echo "FAIL a card without irq is packed"; exit 1; fi
case "$said" in *"no port irq"*) ;; *) echo "FAIL $said"; exit 1 ;; esac
echo "$count faults noticed"
