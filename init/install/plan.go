package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"ssi/internal/config"
)

// Options is what an installation consists of.
type Options struct {
	Root    string            // directory to install into; "/" is this machine
	Binary  []byte            // the program
	Links   []string          // names that get a link to it in LinkDir
	Man     map[string][]byte // man pages by file name, for ManDir
	Config  []byte            // example for /etc/ssi/ssi.toml
	Default bool              // boot ssi by default
	DryRun  bool              // print, change nothing
	Missing []string          // required features that the running kernel lacks; only for this machine

	// Found founds the cluster in the root directory, whose first node others reach
	// at addr (HOST:PORT), and returns what to tell; it is called only while there is
	// none. Nil founds nothing.
	Found func(ctx context.Context, addr string) (string, error)
	// Where finds that address with a configuration; needed with Found.
	Where func(c config.Config) (addr string, err error)
	// Network tells how the network of this machine is; nil in a root directory that
	// does not run.
	Network func() (Network, error)
	Addr    string // HOST:PORT where other nodes reach this one, if it is told

	// Update runs update-grub for this machine; nil when that is not possible, as in
	// a root directory that does not run.
	Update func(ctx context.Context) error

	Out io.Writer // gets a line for each change

	addr string       // what Where said
	step func() error // see disk
}

const (
	configFile  = "/etc/ssi/ssi.toml"
	clusterFile = StateDir + "/cluster.json" // written by cluster.Found
)

// item is one thing to have.
type item struct {
	kind    string
	path    string
	content []byte
	target  string
	mode    fs.FileMode

	once bool // only if there is nothing: the operator's from then on
	edit bool // an addition to a file of somebody else
	menu bool // the boot menu must be made again
	take bool // replace even what somebody else has put there
}

func (i item) hash() string {
	return thing{kind: i.kind, content: i.content, target: i.target}.hash()
}

func (i item) String() string {
	switch i.kind {
	case kindDir:
		return i.path + "/"
	case kindLink:
		return i.path + " -> " + i.target
	}
	if i.edit {
		return fmt.Sprintf("%s (an entry is added)", i.path)
	}
	return fmt.Sprintf("%s (%s)", i.path, size(len(i.content)))
}

func size(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}

// plan is everything an installation has, in the order in which it is done: the
// boot entry last, so that none leads to something unfinished. c is the
// configuration that there will be.
func plan(d *disk, o Options) (items []item, c config.Config, notes []string, err error) {
	old, err := d.look(Program)
	if err != nil {
		return nil, c, nil, err
	}
	bin := item{kind: kindFile, path: Program, content: o.Binary, mode: 0o755, take: true}
	if old.kind == kindFile && old.hash() != bin.hash() {
		items = append(items, item{kind: kindFile, path: Program + ".old", content: old.content, mode: old.mode, take: true})
	}
	items = append(items, bin)
	for _, name := range o.Links {
		items = append(items, item{kind: kindLink, path: path.Join(LinkDir, name), target: Program})
	}
	names := make([]string, 0, len(o.Man))
	for name := range o.Man {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		items = append(items, item{kind: kindFile, path: path.Join(ManDir, name), content: o.Man[name], mode: 0o644})
	}
	text, c, notes, err := configure(d, o)
	if err != nil {
		return nil, c, nil, err
	}
	items = append(items, item{kind: kindFile, path: configFile, content: text, mode: 0o644, once: true})
	items = append(items, item{kind: kindDir, path: NetbootIn, mode: 0o755}, item{kind: kindDir, path: ClusterIn, mode: 0o755})
	boot, more := bootItems(d, o.Default)
	return append(items, boot...), c, append(notes, more...), nil
}

// Install installs, or with DryRun prints what it would do. Repeated, it finishes
// what was interrupted and brings an older installation up to date.
func Install(ctx context.Context, o Options) error {
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("install into %s: %w", o.Root, err)
	}
	defer root.Close()
	d := &disk{root: root, step: o.step}
	release, err := d.lock()
	if err != nil {
		return fmt.Errorf("install into %s: %w", o.Root, err)
	}
	defer release()
	items, c, notes, err := plan(d, o)
	if err != nil {
		return fmt.Errorf("install into %s: %w", o.Root, err)
	}
	problems, more := check(d, o, items)
	if o.Found != nil && !d.isFile(clusterFile) {
		if o.addr, err = o.Where(c); err != nil {
			problems = append(problems, fmt.Sprintf("found a cluster: %v", err))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("install into %s: nothing was changed:\n  %s", o.Root, strings.Join(problems, "\n  "))
	}
	notes = append(notes, more...)
	if o.DryRun {
		err = preview(d, o, items)
	} else {
		err = apply(ctx, d, o, items)
	}
	if err != nil {
		return fmt.Errorf("install into %s: %w", o.Root, err)
	}
	for _, note := range notes {
		if _, err := fmt.Fprintln(o.Out, "note:", note); err != nil {
			return err
		}
	}
	return nil
}

// preview prints the changes.
func preview(d *disk, o Options, items []item) error {
	r, err := readRecord(d)
	if err != nil {
		return err
	}
	if r == nil {
		r = &record{}
	}
	menu := r.Update
	for _, i := range items {
		for _, dir := range missingDirs(d, parentOf(i)) {
			fmt.Fprintf(o.Out, "would make   %s/\n", dir)
		}
		there, err := d.look(i.path)
		if err != nil {
			return err
		}
		switch decide(i, there, r.find(i.path)) {
		case actWrite:
			fmt.Fprintf(o.Out, "would %-7s%s\n", verbFor(i), i)
			menu = menu || i.menu
		case actKeep:
			fmt.Fprintf(o.Out, "would keep   %s: it was changed since\n", i.path)
		}
	}
	if o.Found != nil && !d.isFile(clusterFile) {
		fmt.Fprintf(o.Out, "would found  a cluster whose first node is this machine, at %s, in %s/\n", o.addr, StateDir)
	}
	if menu {
		fmt.Fprintf(o.Out, "would run    update-grub\n")
	}
	return nil
}

// parentOf is the directory an item needs.
func parentOf(i item) string { return path.Dir(i.path) }

// missingDirs lists the directories that p needs, p too, the highest first.
func missingDirs(d *disk, p string) (missing []string) {
	for ; p != "/" && !d.isDir(p); p = path.Dir(p) {
		missing = append(missing, p)
	}
	slices.Reverse(missing)
	return missing
}

// What to do about an item.
type verdict int

const (
	actNothing verdict = iota // it is as it should be, or the operator's
	actWrite
	actKeep // somebody else changed ours: it stays
)

// decide compares an item with what is there and with what the record says of it.
func decide(i item, there thing, e *entry) verdict {
	hash := there.hash()
	switch {
	case there.kind == i.kind && (i.kind == kindDir || hash == i.hash()):
		return actNothing
	case i.once && there.kind != "":
		return actNothing
	case there.kind == "" || i.take || i.edit:
		return actWrite
	case e != nil && (slices.Contains(e.Ours, hash) || e.Before == hash):
		return actWrite
	case e == nil && i.kind == kindLink: // check let only links to an ssi pass
		return actWrite
	}
	return actKeep
}

// apply does what the items say.
func apply(ctx context.Context, d *disk, o Options, items []item) error {
	r, err := begin(d)
	if err != nil {
		return err
	}
	for _, i := range items {
		if isBoot(i) && o.Found != nil {
			if err := found(ctx, d, o); err != nil {
				return err
			}
			o.Found = nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted: run it again to finish, or ssi uninstall: %w", err)
		}
		if err := put(d, o, r, i); err != nil {
			return fmt.Errorf("%s: %w; what was done is recorded: run it again to finish, or ssi uninstall", i.path, err)
		}
	}
	if o.Found != nil {
		if err := found(ctx, d, o); err != nil {
			return err
		}
	}
	return update(ctx, d, o.Update, o.Out, r)
}

// isBoot reports whether an item makes ssi appear in a boot menu.
func isBoot(i item) bool {
	return i.menu || i.edit || strings.HasSuffix(i.path, "/loader/entries/ssi.conf")
}

// found founds the cluster unless there is one.
func found(ctx context.Context, d *disk, o Options) error {
	if d.isFile(clusterFile) {
		_, err := fmt.Fprintf(o.Out, "kept         the cluster of this machine, in %s/\n", StateDir)
		return err
	}
	if err := d.change(); err != nil {
		return err
	}
	said, err := o.Found(ctx, o.addr)
	if err != nil {
		return fmt.Errorf("%w; what was done is recorded: run it again to finish, or ssi uninstall", err)
	}
	_, err = fmt.Fprintf(o.Out, "founded      %s\n", said)
	return err
}

// update makes the boot menu again if the record says so.
func update(ctx context.Context, d *disk, run func(context.Context) error, out io.Writer, r *record) error {
	if !r.Update {
		return nil
	}
	if run == nil {
		_, err := fmt.Fprintln(out, "note: run update-grub in that system: its menu does not say yet what was changed")
		return errors.Join(err, clearUpdate(d, r))
	}
	if err := d.change(); err != nil {
		return err
	}
	if err := run(ctx); err != nil {
		return fmt.Errorf("make the boot menu again: %w; the entries that were there are not touched by that", err)
	}
	if _, err := fmt.Fprintln(out, "ran          update-grub"); err != nil {
		return err
	}
	return clearUpdate(d, r)
}

func clearUpdate(d *disk, r *record) error {
	r.Update = false
	return r.save(d)
}

func verbFor(i item) string {
	if i.kind == kindDir {
		return "make"
	}
	return "write"
}
