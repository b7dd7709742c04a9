package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/cluster/core"
	"ssi/cluster/pki"
	"ssi/cluster/raftlog"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// foundingTokenTTL is how long the tokens live that are made with the cluster.
const foundingTokenTTL = 24 * time.Hour

// NewCluster describes a cluster to be founded.
type NewCluster struct {
	Dir     string
	Name    string
	Node    id.Node // number of this machine
	Profile string
	Addr    string // host:port where others reach this machine
	Tokens  int    // one-time tokens to make with it, for the lowest other numbers in turn
	Force   bool   // forget the cluster this machine belongs to: its files are put aside, in Dir
}

// Found makes this machine the first node of a new cluster, by writing its state
// directory; the daemon does the rest when it starts. It returns the cluster and
// the tokens, which are secrets.
func Found(n NewCluster) (Identity, []string, error) {
	fail := func(err error) (Identity, []string, error) {
		return Identity{}, nil, fmt.Errorf("found a cluster: %w", err)
	}
	if _, err := core.TimingFor(n.Profile); err != nil {
		return fail(err)
	}
	if err := refuseMember(n.Dir, n.Force); err != nil {
		return fail(err)
	}
	ca, err := pki.NewCA(n.Name, time.Now())
	if err != nil {
		return fail(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		return fail(err)
	}
	m, err := ca.IssueMaterial(n.Node, pki.RoleNode, key, time.Now())
	if err != nil {
		return fail(err)
	}
	f := founding{Tokens: map[pki.TokenHash]pki.TokenRecord{}}
	if f.CAKey, err = ca.MarshalKey(); err != nil {
		return fail(err)
	}
	var tokens []string
	for other := id.Node(1); len(tokens) < n.Tokens && other.Valid(); other++ {
		if other == n.Node {
			continue
		}
		t, err := pki.NewToken(m.CA, other, pki.RoleNode, time.Now().Add(foundingTokenTTL))
		if err != nil {
			return fail(err)
		}
		f.Tokens[t.Hash()] = t.Record()
		tokens = append(tokens, t.Secret())
	}
	ident := Identity{ID: ca.Cluster, Name: n.Name, Profile: n.Profile, Node: n.Node, Addr: n.Addr}
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return fail(err)
	}
	if err := writeJSON(filepath.Join(n.Dir, fileFounding), 0o600, f); err != nil {
		return fail(err)
	}
	return ident, tokens, settle(n.Dir, ident, m, nil)
}

// JoinRequest describes how this machine wants to join.
type JoinRequest struct {
	Dir     string
	Token   string   // a secret
	Addrs   []string // host:port of nodes of the cluster, tried in order
	Name    string   // of this machine
	Addr    string   // host:port where others reach it
	Version string
	Witness bool // vote only: needs a token made for it
}

// JoinAs asks the cluster to be let in and writes the state directory; the daemon
// does the rest when it starts. A try that was cut off may be repeated.
func JoinAs(ctx context.Context, r JoinRequest) (Identity, error) {
	if err := refuseMember(r.Dir, false); err != nil {
		return Identity{}, err
	}
	token, err := pki.ParseToken(r.Token)
	if err != nil {
		return Identity{}, err
	}
	switch witness := token.Role == pki.RoleWitness; {
	case r.Witness && !witness:
		return Identity{}, errno.New(errno.Invalid, "join", 0, "the token is for a node; a witness needs one made by `ssi cluster token --witness`")
	case !r.Witness && witness:
		return Identity{}, errno.New(errno.Invalid, "join", 0, "the token is for a witness: ssi cluster witness")
	}
	if len(r.Addrs) == 0 {
		return Identity{}, errno.New(errno.Invalid, "join", 0, "no address of a node of the cluster was given")
	}
	key, err := pki.PendingKey(r.Dir)
	if err != nil {
		return Identity{}, err
	}
	join := &pki.Join{Token: token, Key: key, Hostname: r.Name, Address: r.Addr, Version: r.Version}
	var errs []error
	for _, addr := range r.Addrs {
		joined, err := join.Do(ctx, addr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ident := Identity{ID: joined.Who.Cluster, Name: joined.ClusterName, Profile: joined.Profile, Addr: r.Addr,
			Node: joined.Who.Node, Witness: joined.Who.Role == pki.RoleWitness}
		// Of a cluster that was never quite founded here; it must not be founded now.
		if err := os.Remove(filepath.Join(r.Dir, fileFounding)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Identity{}, err
		}
		return ident, settle(r.Dir, ident, joined.Material, joined.Members)
	}
	if len(errs) == 1 {
		return Identity{}, errs[0]
	}
	// One line for all, with the kind of the last.
	var said []string
	for _, err := range errs {
		said = append(said, err.Error())
	}
	return Identity{}, errno.New(errno.KindOf(errs[len(errs)-1]), "", 0, "%s", strings.Join(said, "; "))
}

// settle writes what makes a machine a node; the identity comes last, so that
// who finds it finds all.
func settle(dir string, ident Identity, m pki.Material, members []pki.Member) error {
	if err := m.Save(dir); err != nil {
		return err
	}
	peers := peerFile{Addrs: map[id.Node]string{}}
	for _, p := range members {
		peers.Addrs[p.Node] = p.Address
	}
	if err := writeJSON(filepath.Join(dir, filePeers), 0o644, peers); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, fileCluster), 0o644, ident)
}

// refuseMember makes sure that the machine is not a node already.
func refuseMember(dir string, force bool) error {
	ident, err := ReadIdentity(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !force {
		if err != nil {
			return err
		}
		return errno.New(errno.Exists, "", 0, "this machine is node %d of cluster %q (%s); to forget that: --force", ident.Node, ident.Name, dir)
	}
	return putAllAside(dir)
}

// putAllAside moves what is in the state directory into a new one inside it: the
// directory itself may be a mount point. The identity goes last, so that what was
// interrupted is found and can be repeated.
func putAllAside(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	to := aside(filepath.Join(dir, dirAside))
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == fileCluster || strings.HasPrefix(e.Name(), dirAside+".") {
			continue
		}
		if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(dir, fileCluster), filepath.Join(to, fileCluster)); err != nil {
		return err
	}
	return errors.Join(syncDir(to), syncDir(dir))
}

// aside is a name beside path that is not in use.
func aside(path string) string {
	return fmt.Sprintf("%s.%s", path, time.Now().Format("20060102-150405.000000"))
}

// PutAside moves the durable log of this node out of the way, so that the node
// starts empty under its number; the voters that remain hold the state. It
// returns the new place, "" if there was no log. It refuses while a daemon uses
// the log.
func PutAside(dir string) (string, error) {
	path := filepath.Join(dir, dirRaft)
	switch log, err := raftlog.Open(path, raftlog.Identity{}, nil); {
	case err == nil:
		if err := log.Close(); err != nil {
			return "", err
		}
	case errors.Is(err, unix.EBUSY):
		return "", err
	}
	to := aside(path)
	err := os.Rename(path, to)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return to, syncDir(dir)
}
