package kmod

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxQueue is how many events wait while a module is being loaded.
const maxQueue = 4096

// lowPriority is the nice(2) value at which drivers are loaded.
const lowPriority = 10

// missedTime is when Run looks for what may have appeared just before its Events was
// opened and be needed before it is Settled, such as the network.
const missedTime = 3 * time.Second

// Source gives kernel events; Events is one.
type Source interface {
	Next(ctx context.Context) (Event, error)
}

// Hotplug keeps a machine's modules and links up to date with its devices.
type Hotplug struct {
	Loader  func() (*Loader, error) // asked when a module is needed; with an error none is loaded
	Events  Source
	Settled <-chan struct{} // closed when there is time to look at everything; nil: at once
	Links   *Links          // nil: none are kept
	Sys     string          // "/sys"
	Log     *slog.Logger
}

// Run loads the modules of each device that appears and sets the links, until ctx
// ends; it returns nil then. Once Settled it does so for all devices, because some
// may have appeared before Events was opened (for Urgent ones after missedTime at the
// latest); and when events were lost it looks at everything again. Events is not closed.
func (h *Hotplug) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	// Nobody waits for most drivers, and a processor may be busy with one for seconds.
	// The thread ends with this goroutine.
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowPriority); err != nil {
		h.Log.Info("drivers are loaded at the usual priority", "err", err)
	}
	queue := make(chan Event, maxQueue)
	again := make(chan struct{}, 1)
	var reader sync.WaitGroup
	var failed error
	reader.Go(func() {
		defer close(queue)
		failed = h.read(ctx, queue, again)
	})
	defer reader.Wait()
	defer cancel()

	settled, missed := h.Settled, time.After(missedTime)
	if settled == nil {
		h.everything(ctx, nil)
		missed = nil
	}
	disks := false
	for {
		if disks && len(queue) == 0 { // once for all partitions of a new disk
			h.links()
			disks = false
		}
		select {
		case <-again:
			h.everything(ctx, nil)
		case <-settled:
			settled, missed = nil, nil
			h.everything(ctx, nil)
		case <-missed:
			missed = nil
			h.everything(ctx, Urgent)
		case e, ok := <-queue:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return failed // set before the queue was closed
			}
			disks = h.handle(e) || disks
		}
	}
}

// read queues events until the socket or ctx ends.
func (h *Hotplug) read(ctx context.Context, queue chan<- Event, again chan<- struct{}) error {
	for {
		e, err := h.Events.Next(ctx)
		lost := errors.Is(err, errOverflow)
		if err != nil && !lost {
			return err
		}
		if !lost {
			select {
			case queue <- e:
				continue
			default:
			}
		}
		select {
		case again <- struct{}{}:
		default: // it will be done anyway
		}
	}
}

// everything loads modules for the devices that are to be served now; nil means all.
func (h *Hotplug) everything(ctx context.Context, now func(Device) bool) {
	defer h.links()
	loader, err := h.Loader()
	if err != nil { // a kernel without modules has all it needs
		h.Log.Warn("no modules can be loaded", "err", err)
		return
	}
	report, err := loader.Coldplug(ctx, h.Sys, now)
	if err != nil && ctx.Err() == nil {
		h.Log.Warn("loading modules for devices failed", "err", err)
	}
	for _, m := range report.Failed {
		level := slog.LevelWarn
		if errors.Is(m.Err, unix.ENODEV) {
			level = slog.LevelDebug // as most modules for features of CPUs
		}
		h.Log.Log(ctx, level, "a module failed", "device", m.For, "err", m.Err)
	}
	h.Log.Info("modules loaded for devices", "summary", report.Summary())
}

// handle loads what an event asks for, and reports whether disks changed.
func (h *Hotplug) handle(e Event) (disks bool) {
	if e.Modalias != "" && (e.Action == "add" || e.Action == "change") {
		h.load(e)
	}
	return e.Subsystem == "block" && e.Action != "bind" && e.Action != "unbind"
}

func (h *Hotplug) load(e Event) {
	loader, err := h.Loader()
	if err != nil {
		return // it was said, or will be, with everything
	}
	all, err := loader.Load(e.Modalias)
	if err != nil && !errors.Is(err, ErrUnknown) {
		h.Log.Warn("a module failed", "device", e.Path, "err", err)
	}
	for _, m := range all {
		if m.New {
			h.Log.Info("module loaded", "module", m.Module, "device", e.Path)
		}
	}
}

func (h *Hotplug) links() {
	if h.Links == nil {
		return
	}
	if err := h.Links.Update(); err != nil {
		h.Log.Warn("the links to disks are not up to date", "err", err)
	}
}
