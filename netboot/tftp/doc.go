// Package tftp serves boot loaders by TFTP, read only: RFC 1350 with the options
// blksize (RFC 2348), tsize (RFC 2349) and windowsize (RFC 7440).
//
// It serves the names of a Files (the boot tree) and what the hook Dynamic
// makes for one machine; no name of a request becomes a path. Only mode octet;
// only IPv4, as DHCPv4 is what leads a machine here. TFTP is for the boot
// loader: what is bigger goes by HTTP.
//
// Why there is no library: github.com/pin/tftp/v3 is slower than tftpd-hpa block
// by block; its remedy, SetAnticipate, sends blocks that the client did not ask
// for, and of transfers over a network that loses 2 % of the datagrams it
// completed 1 of 10 (without it 10 of 10). It makes a socket and a goroutine for a
// request before one can refuse it, and its end waits for all time-outs.
//
// # Goroutines and locks
//
// One goroutine receives the requests; each transfer has one with its own
// socket, connected to the client, so that the kernel drops what others send.
// The sockets of transfers are blocking: one wake-up for each block is what
// makes the speed, and Limits bounds the threads. Close ends all of them at
// once and waits. Server.mu guards the set of transfers and is never held
// while waiting; transfer.mu, below it, guards the socket against its end. The
// sockets of transfers are made in the network namespace of the process, not in
// that of the listening socket: the two must be the same. What a transfer decides is in the type window, which is pure.
//
// # Limits
//
// Limits.Transfers at once, Limits.PerClient of one address; when there are as
// many, a client that never answered makes room for the next. A packet for each
// refusal and none for what is no request. Names of MaxName bytes, requests of
// MaxRequest bytes, blocks of MinBlock to MaxBlock bytes, windows of MaxWindow
// blocks. A datagram is sent Retries+1 times, Limits.Wait apart; a transfer ends
// after Limits.Total.
//
// The package must never write to anything but its sockets.
package tftp
