// Package ntp makes the clock of every node follow the cluster's.
//
// The node that holds init asks the configured servers (none: its own clock is
// the reference, at stratum 10, as the directive local of chrony) and answers
// NTP requests; the other nodes ask it. After a failover they ask the new one:
// nothing is stepped for that, a difference is slewed away.
//
// The core is pure (RFC 5905, reduced to what is needed; now is a monotonic
// time, chance is not used):
//
//   - burst: the node that holds init is asked 4 times in a round; the answer with
//     the least delay is the sample. Others are asked once.
//   - filter: of the last 8 samples of a server the one with the least delay
//     counts, because queues only ever add to a delay (section 10). Stored samples
//     are corrected by what the clock was moved since.
//   - selection: each server says "the true time is within my offset ± my root
//     distance". The largest group whose intervals share a point is believed if it
//     is more than half; the others are falsetickers (section 11.2.1). One server is
//     believed alone; two that contradict each other are both refused. The offset is
//     the mean of the believed, weighted by 1/distance.
//   - servo: a Kalman filter of offset and frequency that becomes an alpha-beta
//     filter. It gives a frequency, and a rest to slew.
//
// The clock is moved by adjtimex(2): the frequency with ADJ_FREQUENCY, the rest
// with ADJ_OFFSET_SINGLESHOT, 0.5 ms a second. Both stay right when the daemon
// dies: the kernel ends the slew by itself. It is stepped only
//
//   - by the first update after the machine was switched on (Config.Boot), before
//     the node is UP and anything that minds runs on it, if it is more than 1 ms off;
//   - later if it is more than Config.Step off in three updates one after the
//     other. That is logged as a warning, one that a clock went backwards under
//     programs that run says so: make and databases mind, yet a clock that is
//     wrong for hours (0.5 s take 17 minutes) is worse for a cluster.
//
// A clock that is more than 1000 s off later is left alone and reported, as ntpd
// does. A leap second is not announced to the kernel: the clock is a second off
// after it, which is then stepped.
//
// Where the clock is not ours (another daemon disciplines it, or it belongs to
// the host: MayDiscipline), the service observes: it measures, reports and serves,
// and never changes it.
//
// Goroutines: Service.run, which owns the core and the clock; one per question
// of a round, which run waits for; one per listening socket, which run starts and
// waits for. Close waits for run. One lock, Service.mu, guards the role and the
// status that others see; nothing blocks under it.
//
// Limits: MaxServers servers, 8 samples of each, a second for an answer, 1,024
// rate-limited clients. The server answers only what is a plain client request
// of 48 bytes from an allowed address, with 48 bytes: no amplification, no
// control or private mode, no symmetric mode, no authentication.
//
// It must never change a clock without Config.Discipline, block a caller of
// Status, or believe a server that the majority contradicts.
package ntp
