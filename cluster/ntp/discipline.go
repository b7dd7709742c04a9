package ntp

import (
	"fmt"
	"time"
)

const (
	// bootStep is from which offset on the first update at boot steps the clock.
	bootStep = time.Millisecond
	// panicOffset is from which offset on a clock is left alone, once it was right
	// (RFC 5905, PANICT).
	panicOffset = 1000 * time.Second
	// confirm is how many updates one after the other must ask for a step.
	confirm = 3
	// LocalStratum is that of an init node whose own clock is the reference.
	LocalStratum = 10
)

// Action is what the core wants done to the clock.
type Action struct {
	Apply     bool          // Frequency and Slew, or Step, are to be done
	Step      time.Duration // set the clock by this much; 0 not
	Slew      time.Duration // let the kernel slew this much, instead of what is left of the last slew
	Frequency float64       // parts per million that the clock is made faster by
	Note      string        // for the log, when something happened that is not usual
}

// discipline is the core: answers in, actions out.
type discipline struct {
	observe bool          // never act
	boot    bool          // the first update may step
	step    time.Duration // threshold of later steps; 0 never

	filters []filter
	servo   servo
	synced  bool          // a source is believed
	first   bool          // there was an update ever
	used    time.Duration // when the newest sample came that an update used
	updated time.Duration // when the last update was
	over    int           // updates one after the other beyond the threshold

	source    int // the server with the least error; -1 none
	believed  []bool
	offset    time.Duration
	jitter    time.Duration
	sample    Sample // of source
	refused   string // why there is no source
	panicking bool
}

// newDiscipline starts with the frequency correction of an earlier run in parts
// per million; known is false when there was none.
func newDiscipline(observe, boot bool, step time.Duration, ppm float64, known bool) *discipline {
	return &discipline{observe: observe, boot: boot, step: step, source: -1, servo: newServo(ppm, known)}
}

// follow forgets the servers and takes n others.
func (d *discipline) follow(n int) {
	d.filters = make([]filter, n)
	d.believed = make([]bool, n)
	d.synced, d.source, d.over, d.refused = false, -1, 0, ""
	if d.first {
		d.servo.loosen()
	}
}

// round takes the answers of one round, those of server i in answers[i].
func (d *discipline) round(now time.Duration, answers [][]Sample) Action {
	if !d.observe {
		d.moved(d.servo.advance(now))
	}
	for i := range d.filters {
		d.filters[i].round(answers[i])
	}
	chosen := d.sources(now)
	if chosen == nil {
		return Action{}
	}
	newest := d.used
	for _, c := range chosen {
		newest = max(newest, c.sample.At)
	}
	if newest == d.used && d.first {
		return Action{} // nothing new since the last update (RFC 5905, section 10)
	}
	dt := newest - d.used
	d.used, d.updated = newest, now
	defer func() { d.first = true }()
	if d.observe {
		return Action{}
	}
	return d.act(now, dt)
}

// sources chooses whom to believe and notes what they say.
func (d *discipline) sources(now time.Duration) []candidate {
	var all []candidate
	for i := range d.filters {
		d.believed[i] = false
		f := &d.filters[i]
		best, ok := f.best(now)
		if !ok || best.distance(now) > maxDistance {
			continue
		}
		all = append(all, candidate{server: i, sample: best, distance: best.distance(now), jitter: f.jitter(best)})
	}
	chosen := choose(all)
	switch {
	case len(all) == 0:
		d.refused = "no server answers"
	case chosen == nil:
		d.refused = fmt.Sprintf("the %d servers contradict each other", len(all))
	default:
		d.refused = ""
	}
	d.synced = chosen != nil
	if !d.synced {
		d.source = -1
		return nil
	}
	for _, c := range chosen {
		d.believed[c.server] = true
	}
	d.source, d.sample, d.jitter = chosen[0].server, chosen[0].sample, chosen[0].jitter
	d.offset = combine(chosen)
	return chosen
}

// act decides what a new offset means for the clock.
func (d *discipline) act(now, dt time.Duration) Action {
	size := d.offset.Abs()
	// What was decided before is still being slewed: only what nobody knows of can
	// ask for a step.
	surprise := (d.offset - d.servo.offset).Abs()
	atBoot := d.boot && !d.first
	switch {
	case atBoot && size > bootStep:
		return d.stepBy(d.offset, fmt.Sprintf("the clock was set by %v at boot", d.offset))
	case !atBoot && d.first && size > panicOffset:
		note := ""
		if !d.panicking {
			note = fmt.Sprintf("the clock is %v off, more than %v: it is left alone; set it by hand", d.offset, panicOffset)
		}
		d.panicking = true
		return Action{Note: note}
	case d.step > 0 && size > d.step && (surprise > d.step || d.over > 0):
		if d.over++; d.over < confirm {
			return Action{}
		}
		note := fmt.Sprintf("the clock was set by %v: it was more than %v off", d.offset, d.step)
		if d.offset < 0 {
			note += "; it went backwards under running programs"
		}
		return d.stepBy(d.offset, note)
	}
	d.over, d.panicking = 0, false
	if turned := d.servo.update(d.offset, dt, d.noise()); turned != 0 {
		for i := range d.filters {
			d.filters[i].turned(turned, now)
		}
	}
	return Action{Apply: true, Slew: d.servo.offset, Frequency: d.servo.freq * 1e6}
}

// noise is how far off the offset is, most times.
func (d *discipline) noise() time.Duration { return d.filters[d.source].noise(d.sample) }

func (d *discipline) stepBy(offset time.Duration, note string) Action {
	d.servo.stepped(d.noise())
	d.moved(offset)
	d.over, d.panicking, d.offset = 0, false, 0
	return Action{Apply: true, Step: offset, Frequency: d.servo.freq * 1e6, Note: note}
}

func (d *discipline) moved(by time.Duration) {
	if by == 0 {
		return
	}
	for i := range d.filters {
		d.filters[i].moved(by)
	}
	d.sample.Offset -= by
}

// reference is what this clock is worth to others.
type reference struct {
	stratum    uint8
	delay      time.Duration // root delay
	dispersion time.Duration // root dispersion
	source     int           // -1: the own clock
	updated    time.Duration
}

// serves is the reference that an init node tells others: its source's, or its
// own clock's.
func (d *discipline) serves(now time.Duration) reference {
	if !d.synced || d.sample.Stratum >= 15 {
		return reference{stratum: LocalStratum, source: -1, updated: now}
	}
	return reference{
		stratum: d.sample.Stratum + 1,
		delay:   d.sample.RootDelay + d.sample.Delay,
		dispersion: d.sample.RootDispersion + d.jitter + d.offset.Abs() +
			drifted(now-d.updated),
		source:  d.source,
		updated: d.updated,
	}
}
