package netboot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"ssi/netboot/initramfs"
	"ssi/netboot/loader"
)

const (
	classEvery = 2 * time.Second // looks which classes are in use
	classPause = 5 * time.Minute // until an initramfs that failed is tried again
)

// classImage is the name of the initramfs of a hardware class; that of "" has the
// drivers of all common machines.
func classImage(class string) string {
	if class == "" {
		return initramfsName
	}
	return "initrd-" + class + ".img"
}

// classStamp is the name of what an initramfs was made of.
func classStamp(class string) string {
	if class == "" {
		return stampName
	}
	return stampName + "-" + class
}

// classOf is the class of an initramfs by its name.
func classOf(name string) (string, bool) {
	class, ok := strings.CutPrefix(name, "initrd-")
	class, ok2 := strings.CutSuffix(class, ".img")
	return class, ok && ok2 && slices.Contains(initramfs.Classes(), class)
}

// isBootFile reports whether a name is that of a boot file that nodes give to each
// other.
func isBootFile(name string) bool {
	_, class := classOf(name)
	return class || name == kernelName || name == initramfsName || slices.Contains(loaderNames(), name)
}

// drop removes what was made for a class.
func (s *stock) drop(class string) error {
	var errs []error
	for _, name := range []string{classStamp(class), classImage(class)} {
		if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// addClasses adds the images of classes that this node does not make: those that
// the cluster has listed, or somebody put here. Those it makes follow later.
func (t *term) addClasses() {
	if t.makes {
		return
	}
	listed := map[string]bool{}
	if shared, _, err := readShared(t.Registry.Stale()); err == nil && shared != nil {
		for _, f := range shared.Files {
			listed[f.Name] = true
		}
	}
	for _, class := range initramfs.Classes() {
		name := classImage(class)
		if !listed[name] && !t.stock.given() {
			continue
		}
		e, err := t.stock.entry(name, loader.InitramfsCheck)
		switch {
		case err == nil:
			t.entries[name] = e
		case !errors.Is(err, fs.ErrNotExist):
			t.log.Error("machines of a hardware class get the initramfs for all", "op", "netboot", "class", class, "err", err)
		}
	}
}

// classesInUse are the hardware classes of the machines of the table, in order.
func (s *Service) classesInUse() ([]string, error) {
	book, err := s.table.Book()
	if err != nil {
		return nil, err
	}
	var used []string
	for _, m := range book.Machines() {
		if slices.Contains(initramfs.Classes(), m.Class) { // an older ssi took others, too
			used = append(used, m.Class)
		}
	}
	slices.Sort(used)
	return slices.Compact(used), nil
}

// classes is which images are served beside the one for all machines.
type classes struct {
	served map[string]bool
	failed map[string]time.Time // when one could not be made
}

// todo is what is to be made and what is served in vain, by what is in use.
func (c classes) todo(used []string, now time.Time) (news, gone []string) {
	for _, class := range used {
		if at, bad := c.failed[class]; !c.served[class] && (!bad || now.Sub(at) >= classPause) {
			news = append(news, class)
		}
	}
	for class := range c.served {
		if !slices.Contains(used, class) {
			gone = append(gone, class)
		}
	}
	return news, gone
}

// followClasses makes and serves an initramfs for each hardware class in use,
// until ctx ends. Meanwhile, and if it cannot be made, the machines of the class
// get the one for all.
func (t *term) followClasses(ctx context.Context) {
	if !t.makes {
		return
	}
	c := classes{served: map[string]bool{}, failed: map[string]time.Time{}}
	tick := time.NewTicker(classEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		used, err := t.classesInUse()
		if err != nil {
			t.log.Error("hardware classes", "op", "netboot", "err", err)
		} else if news, gone := c.todo(used, time.Now()); len(news)+len(gone) > 0 {
			t.turnOver(ctx, c, news, gone)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// turnOver makes the images of new classes, one after the other, and ends those of
// classes that are not used any more.
func (t *term) turnOver(ctx context.Context, c classes, news, gone []string) {
	for _, class := range news {
		delete(c.failed, class)
		err := t.serveClass(ctx, class)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.failed[class] = time.Now()
			t.log.Error("machines of a hardware class get the initramfs for all", "op", "netboot", "class", class, "err", err, "again_in", classPause)
			continue
		}
		c.served[class] = true
	}
	for _, class := range gone {
		delete(c.served, class)
		delete(t.entries, classImage(class))
	}
	err := errors.Join(t.put(t.entries), t.publish(ctx))
	for _, class := range gone {
		err = errors.Join(err, t.stock.drop(class))
	}
	if err != nil && ctx.Err() == nil {
		t.log.Error("the other nodes do not know all boot files", "op", "netboot", "err", err)
	}
}

// serveClass makes the initramfs of a class, if it is not there, and serves it.
func (t *term) serveClass(ctx context.Context, class string) error {
	if err := t.builds.ask(ctx, class); err != nil {
		return err
	}
	e, err := t.stock.entry(classImage(class), loader.InitramfsCheck)
	if err != nil {
		return err
	}
	t.entries[classImage(class)] = e
	if err := t.put(t.entries); err != nil {
		return err
	}
	t.log.Info("machines of a hardware class get their own initramfs", "op", "netboot", "class", class, "bytes", e.Size())
	return nil
}

// initramfs is what a machine of a class boots.
func (t *term) initramfs(class string) string {
	if name := classImage(class); class != "" {
		if _, ok := t.shelf.Tree().Lookup(name); ok {
			return name
		}
	}
	return initramfsName
}
