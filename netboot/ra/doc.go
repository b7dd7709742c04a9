// Package ra answers IPv6 router solicitations with an advertisement that offers
// nothing: no router, no prefix, no DHCPv6. Firmware that configures IPv6 beside
// IPv4 (iPXE, UEFI) waits for one; without an answer iPXE loses 16 s of every
// boot.
//
// ParseSolicitation and Advertisement are the format (RFC 4861 sections 4.1, 4.2
// and 6.1); Responder decides whether to answer; Server drives it on a raw ICMPv6
// socket that is bound to one interface. Where a real router advertises, the
// responder is silent: the machines have their answer, and nobody's flags and
// times are mixed with ours.
//
// Serve runs in the goroutine of its caller and starts none that outlives it.
// There is no lock. Limits: Rate answers a second; packets of maxPacket bytes.
// The socket is opened in the network namespace of the thread that calls Listen.
//
// The package must never advertise a route, a prefix or a lifetime, and must never
// change a setting of the kernel: it makes no router of this machine.
package ra
