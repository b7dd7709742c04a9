package netboot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"time"

	"ssi/netboot/loader"
)

const (
	fetchTime   = 5 * time.Minute  // for one file
	dialTime    = 4 * time.Second  // for the connection
	headTime    = 10 * time.Second // from the request to the first byte
	mirrorPause = 5 * time.Second  // after a failure
)

// Mirror keeps the boot files here, as long as this node may hold init: until ctx
// ends. Nodes that make them need no others. It waits for calm: while many machines
// boot they need the processors and the network more than it does.
func (s *Service) Mirror(ctx context.Context) {
	if !s.Capable || s.Settings.Enable {
		return
	}
	for ctx.Err() == nil {
		if s.Calm != nil {
			s.Calm(ctx)
		}
		rev := s.Registry.Stale().Revision()
		shared, _, err := readShared(s.Registry.Stale())
		if err == nil && shared != nil {
			err = s.fetchAll(ctx, shared)
		}
		until, cancel := context.WithCancel(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("this node cannot boot others if it gets to hold init", "op", "netboot", "err", err, "again_in", mirrorPause)
			cancel()
			until, cancel = context.WithTimeout(ctx, mirrorPause)
		}
		s.news(until, rev)
		cancel()
	}
}

// news waits until the list of boot files is written, or ctx ends. A watch that
// fails was too slow, or the daemon ends.
func (s *Service) news(ctx context.Context, after uint64) {
	w, err := s.Watch(keyShared, after)
	if err != nil {
		<-ctx.Done()
		return
	}
	defer w.Close()
	if _, err := w.Next(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("watch of the boot files", "op", "netboot", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(mirrorPause):
		}
	}
}

// fetch makes sure that the files of the cluster are here, now that this node
// holds init.
func (t *term) fetch(ctx context.Context) error {
	shared, _, err := readShared(t.Registry.Stale())
	switch {
	case err != nil:
		return err
	case shared == nil:
		kernel, modules, err := t.stock.kernel(t.settings)
		if err != nil {
			return err
		}
		return fmt.Errorf("kernel %s with modules %s is not installed here: name one in [netboot] of ssi.toml (kernel, modules)", kernel, modules)
	}
	return t.fetchAll(ctx, shared)
}

// fetchAll fetches the files that are not here, or are others. Names are those
// of boot files, without directories.
func (s *Service) fetchAll(ctx context.Context, shared *Shared) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	s.stock.known.expect(shared)
	client := s.newClient()
	defer client.CloseIdleConnections()
	var errs []error
	for _, f := range shared.Files {
		if f.Name != path.Base(f.Name) || !isBootFile(f.Name) || f.Size > loader.MaxImage {
			errs = append(errs, fmt.Errorf("registry key %s: %.80q is no boot file", keyShared, f.Name))
			continue
		}
		if s.stock.has(f) {
			continue
		}
		err := fetch(ctx, client, "http://"+shared.Server+"/"+f.Name, s.stock.path(f.Name), f)
		if err == nil && !s.stock.has(f) {
			err = fmt.Errorf("%s: %w", s.stock.path(f.Name), loader.ErrChanged)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("fetch %s from %s: %w", f.Name, shared.Server, err))
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			break // the others are not to be had there, either
		}
	}
	return errors.Join(errs...)
}

// newClient is for one server, which may be gone without a word.
func (s *Service) newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: s.dial, ResponseHeaderTimeout: headTime, MaxIdleConns: 1,
	}}
}

// fetch gets one file and puts it in place if it is the right one.
func fetch(ctx context.Context, client *http.Client, url, to string, f File) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP status %d", res.StatusCode)
	}
	out, err := os.CreateTemp(filepath.Dir(to), ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(out.Name()) }()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(res.Body, f.Size+1))
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if n != f.Size || hex.EncodeToString(h.Sum(nil)) != f.Sum {
		return errors.New("what came is not the file whose SHA-256 the registry has")
	}
	return os.Rename(out.Name(), to)
}
