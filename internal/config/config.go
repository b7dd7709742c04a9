// Package config reads what the operator of a node decides: /etc/ssi/ssi.toml,
// the parameters on the kernel command line of a machine that has no such file
// because it was booted over the network (FromParams), and the file with which a
// new machine joins.
//
// A missing file means the defaults. Anything that is not understood (an
// unknown key, a value of the wrong kind or out of range) is an error that
// names file, line, column and what is allowed: a node never starts with a
// setting that was meant otherwise. docs/ssi.toml describes every key, and a
// test compares it with the type.
//
// A text is decoded three times, each time by what knows most: into nothing in
// particular, which finds what is no TOML; that is compared with the type
// (kinds), which finds unknown keys and wrong values in the right element of an
// array; then into the type, whose checks know the meanings. A scanner (places)
// says where the setting of a path stands.
//
// Limits: MaxFile bytes, MaxInterfaces tables, and those beside the settings.
//
// The package is pure apart from reading the file it is given, has no state and
// no goroutines. It must never hold a secret beyond the one-time token of a
// Join, which is not printed by any of its messages, and never ask the machine
// it runs on: whether an interface exists is found out by internal/netconf.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

const (
	// Path is where the configuration of a node is.
	Path = "/etc/ssi/ssi.toml"
	// Port is the TCP port of ssi.
	Port = 1985

	// MaxFile is the size limit of the file in bytes.
	MaxFile = 1 << 20
	// MaxClasses is how many classes a node may belong to.
	MaxClasses = 32
	// MaxName is how many bytes the name of a node or a class may have: as a
	// label of a host name (RFC 1123).
	MaxName = 63
)

// Config is the configuration of a node.
type Config struct {
	Profile   string   `toml:"profile"`    // timing: fast, lan, wan
	Name      string   `toml:"name"`       // of this node; "" is the host name
	Addr      string   `toml:"addr"`       // host:port where other nodes reach this one; "" finds the address of the default route
	Listen    string   `toml:"listen"`     // [host]:port to accept connections on
	Capable   bool     `toml:"capable"`    // this node may hold init
	Classes   []string `toml:"classes"`    // for onclass
	MaxVoters int      `toml:"max_voters"` // 1, 3, 5 or 7
	LogLevel  string   `toml:"log_level"`  // debug, info, warn, error
	JoinFile  string   `toml:"join_file"`  // token and addresses, used while the node has no certificate
	StateDir  string   `toml:"state_dir"`  // certificates and the log of the consensus
	HooksDir  string   `toml:"hooks_dir"`  // holds nodeup.d and nodedown.d

	Interconnect []string    `toml:"interconnect"` // see Interconnects
	Interfaces   []Interface `toml:"interface"`    // none: another program has configured the network
	Machine      Machine     `toml:"machine"`
	Netboot      Netboot     `toml:"netboot"`
	Time         Time        `toml:"time"`
}

// Default is the configuration of a node without a file.
func Default() Config {
	return Config{
		Profile:   "lan",
		Listen:    ":" + strconv.Itoa(Port),
		Capable:   true,
		MaxVoters: 7,
		LogLevel:  "info",
		JoinFile:  "/etc/ssi/join",
		StateDir:  "/var/lib/ssi",
		HooksDir:  "/etc/ssi",
		Machine:   Machine{PowerButton: ButtonPowerOff},
		Netboot:   defaultNetboot(),
		Time:      Time{Serve: true},
	}
}

// Profiles lists the timing profiles.
func Profiles() []string { return []string{"fast", "lan", "wan"} }

// Error is a mistake in a file.
type Error struct {
	File      string
	Line, Col int // from 1; 0 when the mistake has no place
	Text      string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Text)
}

// Load reads the file; a missing one gives the defaults.
func Load(path string) (Config, error) {
	b, err := readFile(path, MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return Config{}, err
	}
	return Parse(path, string(b))
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, &Error{File: path, Text: fmt.Sprintf("not a plain file of at most %d bytes", limit)}
	}
	return os.ReadFile(path)
}

// Parse reads a configuration; file is its name for messages.
func Parse(file, text string) (Config, error) {
	var raw map[string]any
	if _, err := toml.Decode(text, &raw); err != nil {
		e := &Error{File: file, Text: strings.ReplaceAll(err.Error(), "\n", " ")}
		var p toml.ParseError
		if errors.As(err, &p) {
			e.Line, e.Col, e.Text = max(p.Position.Line, 1), max(p.Position.Col, 1), strings.ReplaceAll(p.Message, "\n", " ")
		}
		return Config{}, e
	}
	if wrong := kinds(reflect.TypeFor[Config](), raw, ""); len(wrong) > 0 {
		return Config{}, first(file, text, wrong)
	}
	c := Default()
	if _, err := toml.Decode(text, &c); err != nil {
		return Config{}, &Error{File: file, Text: strings.ReplaceAll(err.Error(), "\n", " ")}
	}
	if path, err := c.check(); err != nil {
		return Config{}, first(file, text, []mistake{{path, fmt.Sprintf("%s: %v", plain(path), err)}})
	}
	return c, nil
}

// first is the mistake that stands first in the text.
func first(file, text string, wrong []mistake) *Error {
	all := places(text)
	var best *Error
	for _, m := range wrong {
		p := find(all, m.path)
		if best == nil || p.line < best.Line || p.line == best.Line && p.col < best.Col {
			best = &Error{File: file, Line: p.line, Col: p.col, Text: m.text}
		}
	}
	return best
}

// check returns the path of the first setting that is out of its range, and
// what is wrong.
func (c Config) check() (path string, err error) {
	checks := []struct {
		key string
		err error
	}{
		{"profile", CheckProfile(c.Profile)},
		{"name", checkName(c.Name, true)},
		{"addr", optional(c.Addr, CheckAddr)},
		{"listen", checkListen(c.Listen)},
		{"classes", checkClasses(c.Classes)},
		{"max_voters", checkVoters(c.MaxVoters)},
		{"log_level", checkLevel(c.LogLevel)},
		{"join_file", checkPath(c.JoinFile)},
		{"state_dir", checkPath(c.StateDir)},
		{"hooks_dir", checkPath(c.HooksDir)},
	}
	for _, check := range checks {
		if check.err != nil {
			return check.key, check.err
		}
	}
	if path, err := c.checkNetwork(); err != nil {
		return path, err
	}
	if key, err := c.Machine.check(); err != nil {
		return join("machine", key), err
	}
	if key, err := c.Netboot.check(); err != nil {
		return join("netboot", key), err
	}
	if key, err := c.Time.check(); err != nil {
		return join("time", key), err
	}
	return "", nil
}

func optional(s string, check func(string) error) error {
	if s == "" {
		return nil
	}
	return check(s)
}

// CheckProfile refuses what is no timing profile.
func CheckProfile(name string) error {
	if !slices.Contains(Profiles(), name) {
		return fmt.Errorf("%q is no profile; the profiles are: %s", name, strings.Join(Profiles(), ", "))
	}
	return nil
}

func checkName(name string, empty bool) error {
	if name == "" && empty {
		return nil
	}
	// A name that is a number or "best" could not be told from what onnode takes.
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`).MatchString(name) || len(name) > MaxName {
		return fmt.Errorf("%q: a name has at most %d of a-z, 0-9 and -, and no - at its ends", name, MaxName)
	}
	if strings.Trim(name, "0123456789") == "" || name == "best" {
		return fmt.Errorf("%q cannot be a name: onnode takes it for something else", name)
	}
	return nil
}

// CheckName refuses what cannot be the name of a node.
func CheckName(name string) error { return checkName(name, false) }

func checkClasses(classes []string) error {
	if len(classes) > MaxClasses {
		return fmt.Errorf("%d classes; at most %d are allowed", len(classes), MaxClasses)
	}
	for _, class := range classes {
		if err := checkName(class, false); err != nil {
			return err
		}
	}
	return nil
}

func checkVoters(n int) error {
	if n < 1 || n > 7 || n%2 == 0 {
		return fmt.Errorf("%d: it is 1, 3, 5 or 7", n)
	}
	return nil
}

func checkLevel(level string) error {
	switch level {
	case "debug", "info", "warn", "error":
		return nil
	}
	return fmt.Errorf("%q is no level; the levels are: debug, info, warn, error", level)
}

// Level is the log level as a slog.Level.
func (c Config) Level() slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return slog.LevelInfo // check refused it already
	}
	return l
}

func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return fmt.Errorf("%q: an absolute path without . and .. is needed", path)
	}
	return nil
}

// CheckAddr refuses what other nodes cannot connect to: HOST:PORT with a host.
func CheckAddr(addr string) error {
	host, err := hostOf(addr)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		return fmt.Errorf("%q names no host that other nodes could reach", addr)
	}
	return nil
}

// checkListen refuses what cannot be listened on: [IP]:PORT.
func checkListen(addr string) error {
	host, err := hostOf(addr)
	if err != nil {
		return err
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil {
		return fmt.Errorf("%q: %q is no IP address; leave it away to listen on all", addr, host)
	}
	return nil
}

func hostOf(addr string) (string, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q is no HOST:PORT, such as 10.0.0.1:%d", addr, Port)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("%q: the port is a number from 1 to 65535", addr)
	}
	return host, nil
}

// CompleteAddr adds the port of ssi to an address without one.
func CompleteAddr(addr string) (string, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(strings.Trim(addr, "[]"), strconv.Itoa(Port))
	}
	return addr, CheckAddr(addr)
}
