# Runs a package_xo.tcl under tclsh with Vivado's commands replaced by ones that look at every argument.
#   tclsh check_xo.tcl PACKAGE_XO.tcl CARD.h
# Ends with 1 and says what is wrong if a file, port, interface or register is not there or not what the sources say. An unknown
# command, option or property is an error, too.
lassign $argv script card_h

proc wrong {text} { puts stderr "check_xo: $text"; exit 1 }
proc read_file {path} {
  if {![file exists $path]} { wrong "there is no file $path" }
  set f [open $path]; set text [read $f]; close $f
  return $text
}
# Options of a command as a dict; `flags` have no value; what is no option is under "".
proc options {command allowed flags arguments} {
  set found [dict create "" {}]
  for {set i 0} {$i < [llength $arguments]} {incr i} {
    set a [lindex $arguments $i]
    if {[string index $a 0] ne "-"} { dict lappend found "" $a; continue }
    if {$a in $flags} { dict set found $a 1 } elseif {$a in $allowed} { dict set found $a [lindex $arguments [incr i]] } else { wrong "$command has no option $a" }
  }
  return $found
}
proc need {command found names} { foreach n $names { if {![dict exists $found $n]} { wrong "$command without $n" } } }

# ---- what the sources say ----
# Ports of a module: name -> {direction width}.
proc ports_of {text module} {
  if {![regexp "module $module \\((.*?)\\);" $text - head]} { wrong "there is no module $module" }
  set found [dict create]
  foreach {- direction high name} [regexp -all -inline {(input|output) wire (?:\[(\d+):0\] )?(\w+)} $head] {
    dict set found $name [list $direction [expr {$high eq "" ? 1 : $high + 1}]]
  }
  return $found
}
# name -> offset, and name -> bits
proc registers_of {path} {
  set found [dict create]
  foreach {- name value} [regexp -all -inline {REG_(\w+) = (0x[0-9a-fA-F]+)} [read_file $path]] { dict set found [string tolower $name] [expr {$value}] }
  if {[dict size $found] < 10} { wrong "$path names no registers" }
  return $found
}
# AXI as the manager or the subordinate drives it: signal {direction width}; a width of 0 is not looked at.
set write_channels {awvalid {output 1} awready {input 1} awaddr {output 64} awlen {output 8} awsize {output 3} awburst {output 2} awlock {output 1} awcache {output 4} awprot {output 3} awqos {output 4}
  wvalid {output 1} wready {input 1} wdata {output 512} wstrb {output 64} wlast {output 1} bvalid {input 1} bready {output 1} bresp {input 2}}
set read_channels {arvalid {output 1} arready {input 1} araddr {output 64} arlen {output 8} arsize {output 3} arburst {output 2} arlock {output 1} arcache {output 4} arprot {output 3} arqos {output 4}
  rvalid {input 1} rready {output 1} rdata {input 512} rresp {input 2} rlast {input 1}}
set lite {awvalid {input 1} awready {output 1} awaddr {input 16} wvalid {input 1} wready {output 1} wdata {input 32} wstrb {input 4} bvalid {output 1} bready {input 1} bresp {output 2}
  arvalid {input 1} arready {output 1} araddr {input 16} rvalid {output 1} rready {input 1} rdata {output 32} rresp {output 2}}

# ---- what the script has done ----
set state [dict create files {} top "" registers {} busses {} associated {} parameters {} properties {}]
proc in_state {args} { global state; return [dict exists $state {*}$args] }

# Vivado takes ports with a common prefix for an interface: what it would find must be whole.
proc infer {} {
  global state ports read_channels write_channels lite
  dict for {name what} $ports {
    if {[regexp {^(m_axi_[a-z]+)_(ar|aw)valid$} $name - bus channel]} { dict set state busses $bus [expr {$channel eq "ar" ? "read" : "write"}] 1 }
  }
  if {![dict exists $ports s_axi_control_awvalid]} { wrong "there is no port s_axi_control_awvalid" }
  whole s_axi_control $lite
  dict for {bus halves} [dict get $state busses] {
    if {[dict exists $halves read]} { whole $bus $read_channels }
    if {[dict exists $halves write]} { whole $bus $write_channels }
  }
  dict set state busses s_axi_control control 1
  foreach one {ap_clk ap_rst_n interrupt} { if {![dict exists $ports $one]} { wrong "there is no port $one" } }
  set known {ap_clk 1 ap_rst_n 1 interrupt 1}
  foreach name [dict keys $ports] {
    if {![dict exists $known $name] && ![regexp {^(s_axi_control|m_axi_[a-z]+)_} $name]} { wrong "port $name belongs to no interface" }
  }
}
proc whole {bus signals} {
  global ports
  foreach {signal expected} $signals {
    if {![dict exists $ports ${bus}_$signal]} { wrong "interface $bus has no $signal" }
    if {[dict get $ports ${bus}_$signal] ne $expected} { wrong "port ${bus}_$signal is [dict get $ports ${bus}_$signal], not $expected" }
  }
}

# ---- Vivado's commands ----
proc create_project {args} {
  set o [options create_project {-part} {-force} $args]
  need create_project $o {-part}
  if {[llength [dict get $o ""]] != 2} { wrong "create_project wants a name and a folder" }
}
proc add_files {args} {
  global state
  set o [options add_files {} {-norecurse} $args]
  foreach f [lindex [dict get $o ""] 0] { read_file $f; dict lappend state files $f }
}
proc current_fileset {} { return fileset }
proc update_compile_order {args} { options update_compile_order {-fileset} {} $args }
namespace eval ipx {}
proc ipx::package_project {args} {
  global state ports
  set o [options package_project {-root_dir -vendor -library -taxonomy -set_current} {-import_files} $args]
  need package_project $o {-root_dir -vendor -library -taxonomy}
  if {[dict get $o -set_current] ne "true"} { wrong "the packaged core is not the current one" }
  set text ""
  foreach f [dict get $state files] { append text [read_file $f] \n }
  if {[dict get $state top] eq ""} { wrong "no top is set" }
  set ports [ports_of $text [dict get $state top]]
  ports_of $text card
  infer
}
proc ipx::current_core {} { return core }
proc ipx::associate_bus_interfaces {args} {
  global state
  set o [options associate_bus_interfaces {-busif -clock} {} $args]
  if {[dict get $o -clock] ne "ap_clk"} { wrong "interface [dict get $o -busif] goes with no clock of the card" }
  ipx::get_bus_interfaces [dict get $o -busif] -of_objects core
  dict set state associated [dict get $o -busif] 1
}
proc ipx::get_bus_interfaces {name args} {
  if {![in_state busses $name]} { wrong "there is no interface $name" }
  return [list bus $name]
}
proc ipx::add_bus_parameter {name bus} {
  if {$name ni {READ_WRITE_MODE MAX_BURST_LENGTH SUPPORTS_NARROW_BURST NUM_READ_OUTSTANDING NUM_WRITE_OUTSTANDING}} { wrong "an interface has no parameter $name" }
  return [list bus_parameter [lindex $bus 1] $name]
}
proc ipx::get_memory_maps {name args} {
  if {$name ne "s_axi_control"} { wrong "$name has no registers" }
  return [list map $name]
}
proc ipx::get_address_blocks {name args} {
  if {$name ne "reg0"} { wrong "there is no address block $name" }
  return [list block $name]
}
proc ipx::add_register {name block} {
  global state
  if {[lindex $block 0] ne "block"} { wrong "register $name is put into [lindex $block 0]" }
  if {[in_state registers $name]} { wrong "register $name is added twice" }
  dict set state registers $name {}
  return [list register $name]
}
proc ipx::add_register_parameter {name register} {
  if {$name ne "ASSOCIATED_BUSIF"} { wrong "a register has no parameter $name" }
  return [list register_parameter [lindex $register 1] $name]
}
proc set_property {name value object} {
  global state known
  switch -- [lindex $object 0] {
    core { if {$name ni {sdx_kernel sdx_kernel_type vitis_drc ipi_drc core_revision}} { wrong "a core has no property $name" }; dict set state properties $name $value }
    fileset { if {$name ne "top"} { wrong "a fileset has no property $name" }; dict set state top $value }
    bus_parameter { dict set state parameters [lindex $object 1] [lindex $object 2] $value }
    register {
      if {$name ni {address_offset size access description}} { wrong "a register has no property $name" }
      if {$name eq "access" && $value ni {read-only read-write write-only}} { wrong "a register can't be $value" }
      dict set state registers [lindex $object 1] $name $value
    }
    register_parameter { ipx::get_bus_interfaces $value; dict set state pointers $value [lindex $object 1] }
    default { wrong "set_property on '$object'" }
  }
}
proc ipx::create_xgui_files {core} {}
proc ipx::update_checksums {core} {}
proc ipx::check_integrity {args} { options check_integrity {} {-kernel} $args }
proc ipx::save_core {core} { global state; dict set state saved 1 }
proc package_xo {args} {
  global state
  set o [options package_xo {-xo_path -kernel_name -ip_directory -ctrl_protocol} {-force} $args]
  need package_xo $o {-xo_path -kernel_name -ip_directory -ctrl_protocol}
  if {[dict get $o -kernel_name] ne [dict get $state top]} { wrong "the kernel is not the top" }
  if {[dict get $o -ctrl_protocol] ne "user_managed"} { wrong "the card's registers are its own: the protocol must be user_managed" }
  if {![in_state saved]} { wrong "package_xo before the core is saved" }
  dict set state packed 1
}
proc unknown {args} { wrong "unknown command: $args" }

# ---- run and judge ----
set argv [list xcu55c-fsvh2892-2L-e luge_card.xo]
set argc 2
if {[catch {source $script} message]} { wrong "$script: $message" }
if {![in_state packed]} { wrong "nothing is packed" }
foreach {property value} {sdx_kernel true sdx_kernel_type rtl vitis_drc {ctrl_protocol user_managed}} {
  if {![in_state properties $property] || [dict get $state properties $property] ne $value} { wrong "the core's $property is not $value" }
}
set expected [registers_of $card_h]
dict for {name at} $expected {
  if {![in_state registers $name address_offset]} { wrong "register $name is not described" }
  if {[dict get $state registers $name address_offset] != $at} { wrong "register $name is at [dict get $state registers $name address_offset], not $at" }
}
set ends [dict create]
dict for {name what} [dict get $state registers] {
  if {![dict exists $expected $name]} { wrong "register $name is not one of the card" }
  foreach property {size access description} { if {![dict exists $what $property]} { wrong "register $name has no $property" } }
  if {[dict get $what size] ni {32 64}} { wrong "register $name has [dict get $what size] bits" }
  for {set i 0} {$i < [dict get $what size] / 32} {incr i} {
    set at [expr {[dict get $what address_offset] + 4 * $i}]
    if {[dict exists $ends $at]} { wrong "registers $name and [dict get $ends $at] overlap" }
    dict set ends $at $name
  }
}
dict for {bus halves} [dict get $state busses] {
  if {![in_state associated $bus]} { wrong "interface $bus has no clock" }
  if {$bus eq "s_axi_control"} continue
  if {![in_state parameters $bus MAX_BURST_LENGTH] || [dict get $state parameters $bus MAX_BURST_LENGTH] != 64} { wrong "$bus does not say that its bursts have 64 beats at most" }
  set mode [expr {[dict exists $halves read] ? [dict exists $halves write] ? "READ_WRITE" : "READ_ONLY" : "WRITE_ONLY"}]
  if {![in_state parameters $bus READ_WRITE_MODE] || [dict get $state parameters $bus READ_WRITE_MODE] ne $mode} { wrong "$bus is $mode and does not say so" }
  if {![in_state pointers $bus]} { wrong "no register says which memory $bus needs" }
  set register [dict get $state pointers $bus]
  if {[dict get $state registers $register size] != 64} { wrong "$register is no address" }
}
puts "package_xo.tcl: [dict size [dict get $state registers]] registers, [dict size [dict get $state busses]] interfaces, [dict size $ports] ports as the sources say"
