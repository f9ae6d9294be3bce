# Runs a board's block design under tclsh with Vivado's commands replaced by ones that know the address map of hls/registers/card.h.
#   tclsh check_design.tcl DESIGN.tcl CARD.h
# Ends with 1 and says what is wrong: cells, pins or connections that are not there or made twice, regions that are not where the firmware looks for
# them, of another size, or not there at all.
lassign $argv script card_h
proc wrong {text} { puts stderr "check_design: $text"; exit 1 }
set f [open $card_h]; set header [read $f]; close $f
foreach {- name value} [regexp -all -inline {MAP_(\w+) = (0x[0-9a-fA-F]+)} $header] { dict set map [string tolower $name] [expr {$value}] }

# What IP has, as far as the design uses it: interface pins and pins.
set pins {
  microblaze_riscv {DLMB ILMB M_AXI_DP Reset} lmb_v10 {LMB_M LMB_Sl_0} lmb_bram_if_cntlr {SLMB BRAM_PORT} blk_mem_gen {BRAM_PORTA BRAM_PORTB}
  smartconnect {S00_AXI S01_AXI M00_AXI M01_AXI M02_AXI M03_AXI M04_AXI M05_AXI M06_AXI} axi_bram_ctrl {S_AXI BRAM_PORTA} axi_quad_spi {AXI_LITE}
  axi_timebase_wdt {S_AXI wdt_reset} system_management_wiz {S_AXI_LITE} proc_sys_reset {aux_reset_in mb_reset ext_reset_in} module {s_axi_control m_axi_job m_axi_read m_axi_write}
}
set cells [dict create]; set ports [dict create]; set nets [dict create]; set assigned [dict create]; set masters [dict create]; set done {}
proc create_bd_design {name} { if {![regexp {^luge_\w+$} $name]} { wrong "design $name" } }
proc create_bd_port {args} { global ports; dict set ports [lindex $args end] 1 }
proc create_bd_intf_port {args} { global ports; dict set ports [lindex $args end] 1 }
proc create_bd_cell {args} {
  global cells pins
  set name [lindex $args end]
  if {[dict exists $cells $name]} { wrong "cell $name is made twice" }
  if {[lindex $args 1] eq "module"} { dict set cells $name module; return }
  if {![regexp {^xilinx.com:ip:(\w+)$} [lindex $args 3] - ip]} { wrong "cell $name is of no IP" }
  if {![dict exists $pins $ip]} { wrong "nothing is known of IP $ip" }
  dict set cells $name $ip
}
proc get_bd_cells {name} { global cells; if {$name ne "*" && ![dict exists $cells $name]} { wrong "there is no cell $name" }; return $name }
proc set_property {name value object} { if {![string match CONFIG.* $name]} { wrong "property $name" } }
proc pin_of {name} {
  global cells pins
  lassign [split $name /] cell pin
  if {![dict exists $cells $cell]} { wrong "there is no cell $cell" }
  if {$pin ni [dict get $pins [dict get $cells $cell]]} { wrong "cell $cell has no pin $pin" }
  return $name
}
proc get_bd_intf_pins {name} { return [pin_of $name] }
proc get_bd_pins {args} { if {[lindex $args 0] eq "-of_objects"} { return all_clocks }; return [pin_of [lindex $args 0]] }
proc get_bd_intf_ports {name} { global ports; if {![dict exists $ports $name]} { wrong "there is no port $name" }; return $name }
proc get_bd_ports {name} { return [get_bd_intf_ports $name] }
proc connect_bd_intf_net {a b} {
  global nets
  foreach end [list $a $b] { if {[dict exists $nets $end]} { wrong "$end is connected twice" }; dict set nets $end 1 }
  dict set nets "$a>$b" 1
}
proc connect_bd_net {args} { global nets; dict set nets [join $args >] 1 }
proc assign_bd_address {args} {
  global assigned
  array set o [lrange $args 0 end-1]
  foreach need {-offset -range -target_address_space} { if {![info exists o($need)]} { wrong "assign_bd_address without $need" } }
  set to [lindex $args end]
  if {[string match */* $to]} { pin_of $to } else { get_bd_intf_ports $to }
  set begin [expr {$o(-offset)}]; set end [expr {$begin + $o(-range)}]
  if {$begin % $o(-range)} { wrong "$to is at $o(-offset), which is no multiple of its size" }
  dict for {other place} $assigned {
    lassign $place space from until
    if {$space eq $o(-target_address_space) && $begin < $until && $from < $end} { wrong "$to overlaps [lindex $other 1]" }
  }
  dict set assigned [list $o(-target_address_space) $to] [list $o(-target_address_space) $begin $end]
}
proc validate_bd_design {} { global done; lappend done validated }
proc save_bd_design {} { global done; lappend done saved }
proc unknown {args} { wrong "unknown command: $args" }
if {[catch {source $script} message]} { wrong "$script: $message" }

# ---- judge ----
if {$done ne {validated saved}} { wrong "the design is not validated and saved" }
set answers {local local_control_d/SLMB registers card/s_axi_control shared shared_control/S_AXI watchdog watchdog/S_AXI sensors sensors/S_AXI_LITE board board_control/S_AXI scratch scratch}
if {[dict exists $cells flash]} { lappend answers flash flash/AXI_LITE }
foreach {region to} $answers {
  if {![dict exists $assigned [list controller/Data $to]]} { wrong "the controller sees no $region" }
  lassign [dict get $assigned [list controller/Data $to]] - begin end
  if {$begin != [dict get $map $region]} { wrong [format "%s is at 0x%08x, the firmware looks at 0x%08x" $region $begin [dict get $map $region]] }
  if {$end - $begin != [dict get $map ${region}_bytes]} { wrong [format "%s has 0x%x bytes, not 0x%x" $region [expr {$end - $begin}] [dict get $map ${region}_bytes]] }
}
if {![dict exists $assigned {s_axi_control shared_control/S_AXI}] || [lindex [dict get $assigned {s_axi_control shared_control/S_AXI}] 1] != 0x8000} { wrong "the host does not see the shared words at 0x8000" }
foreach pair {"s_axi_control>bus/S00_AXI" "controller/M_AXI_DP>bus/S01_AXI" "controller/DLMB>local_bus_d/LMB_M" "controller/ILMB>local_bus_i/LMB_M" "watchdog/wdt_reset>resets/aux_reset_in" "resets/mb_reset>controller/Reset"} {
  if {![dict exists $nets $pair]} { wrong "$pair is not connected" }
}
foreach {region to} $answers {
  if {$region ne "local" && ![dict exists $nets $to]} { wrong "$to is not connected" }
}
puts "[file tail $script]: [dict size $cells] cells, [dict size $assigned] address ranges as the firmware has them"
