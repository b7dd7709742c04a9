package ntp

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/facebook/time/ntp/protocol"
)

// leapUnknown is the leap indicator of a clock that is not synchronised.
const leapUnknown = 3

// errStray is the error of a packet that does not answer the question.
var errStray = errors.New("it answers another question")

// kissError is the answer of a server that wants not to be asked (RFC 5905,
// section 7.4).
type kissError struct{ code string }

func (e *kissError) Error() string { return fmt.Sprintf("it refuses (%s)", e.code) }

// question is one request. Its transmit timestamp is a random number, not the
// time: who does not see it cannot answer, and it tells nothing about our clock.
// (The client of beevik/ntp 1.6 does the same, but panics at a poll interval of
// -128: see testdata/fuzz.)
type question struct{ sec, frac uint32 }

func newQuestion() question {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
	return question{binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint32(b[4:])}
}

func (q question) packet() *protocol.Packet {
	return &protocol.Packet{Settings: maxVersion<<3 | modeClient, TxTimeSec: q.sec, TxTimeFrac: q.frac}
}

// evaluate takes an answer apart. What is not one to this question is errStray,
// so that nobody can spoil it by sending first.
func (q question) evaluate(answer []byte, sent, arrived time.Time) (Sample, error) {
	if len(answer) != protocol.PacketSizeBytes {
		return Sample{}, errStray
	}
	p, err := protocol.BytesToPacket(answer)
	if err != nil {
		return Sample{}, errStray
	}
	version := p.Settings >> 3 & 7
	if p.OrigTimeSec != q.sec || p.OrigTimeFrac != q.frac || p.Settings&7 != modeServer || version < minVersion || version > maxVersion {
		return Sample{}, errStray
	}
	switch {
	case p.Stratum == 0:
		return Sample{}, &kissError{kissCode(p.ReferenceID)}
	case p.Stratum >= unsynchronised || p.Settings>>6 == leapUnknown:
		return Sample{}, errors.New("its clock is not synchronised")
	case p.TxTimeSec == 0 && p.TxTimeFrac == 0:
		return Sample{}, errors.New("the answer has no time")
	}
	t1, t4 := stamp(protocol.Time(sent)), stamp(protocol.Time(arrived))
	t2, t3 := stamp(p.RxTimeSec, p.RxTimeFrac), stamp(p.TxTimeSec, p.TxTimeFrac)
	s := Sample{
		Offset:         between(t1, t2)/2 + between(t4, t3)/2,
		Delay:          max(between(t1, t4)-between(t2, t3), 0), // clocks have steps: it may be less than nothing
		RootDelay:      fromShort(p.RootDelay),
		RootDispersion: fromShort(p.RootDispersion),
		Stratum:        p.Stratum,
	}
	if !s.plausible() {
		return Sample{}, errors.New("the answer makes no sense")
	}
	return s, nil
}

// kissCode is the four letters of a refusal, as far as they are letters.
func kissCode(id uint32) string {
	b := binary.BigEndian.AppendUint32(nil, id)
	for i, c := range b {
		if c < 'A' || c > 'Z' {
			b[i] = '?'
		}
	}
	return string(b)
}

// stamp is a timestamp of RFC 5905, section 6: seconds in the upper half.
func stamp(sec, frac uint32) uint64 { return uint64(sec)<<32 | uint64(frac) }

// between is the time from a to b. The difference is right beyond the end of an
// era (2036) as long as it is less than 68 years.
func between(a, b uint64) time.Duration {
	d := int64(b - a)
	return time.Duration(d>>32)*time.Second + time.Duration((d&(1<<32-1))*int64(time.Second)>>32)
}

// fromShort is the duration of the 32-bit format.
func fromShort(v uint32) time.Duration { return time.Duration(int64(v) * int64(time.Second) >> 16) }
