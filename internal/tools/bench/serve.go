package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/cluster/ics"
	"ssi/cluster/pki"
	"ssi/internal/id"
)

const (
	clientNode = 1
	serverNode = 2
	epoch      = 1
	echoMethod = "bench.Echo/Unary"
	sinkStream = "bench-sink"
	chunk      = 128 << 10 // of a stream: what rexec writes at once
	// The first byte on a plain or TLS connection says what follows.
	modeEcho = 'e' // 100 bytes each way
	modeSink = 's' // bytes, to be thrown away
)

// addresses is where the other side listens.
type addresses struct {
	ICS string `json:"ics"`
	TLS string `json:"tls"`
	TCP string `json:"tcp"`
}

// makeKeys writes the keys of two nodes of one cluster.
func makeKeys() error {
	ca, err := pki.NewCA("bench", time.Now())
	if err != nil {
		return err
	}
	for _, n := range []id.Node{clientNode, serverNode} {
		key, err := pki.NewKey()
		if err != nil {
			return err
		}
		m, err := ca.IssueMaterial(n, pki.RoleNode, key, time.Now())
		if err != nil {
			return err
		}
		if err := m.Save(keyDir(n)); err != nil {
			return err
		}
	}
	return nil
}

func keyDir(n id.Node) string { return filepath.Join(pkiDir, n.String()) }

// transport is node n with the keys that makeKeys wrote; peer is at addr, which
// the server need not know.
func transport(n, peer id.Node, addr string) (*ics.Transport, *tls.Certificate, error) {
	m, err := pki.Load(keyDir(n))
	if err != nil {
		return nil, nil, err
	}
	t, err := ics.New(ics.Config{
		Self: n, Incarnation: id.Incarnation(n), Credentials: pki.NewCredentials(m, func(pki.Identity) bool { return false }),
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return nil, nil, err
	}
	t.SetView(epoch, map[id.Node]ics.Peer{
		n:    {Member: true, Incarnation: id.Incarnation(n)},
		peer: {Addr: addr, Member: true, Incarnation: id.Incarnation(peer)},
	})
	return t, m.TLS(), nil
}

// serve is the other side of every connection of the groups ics and bulk, until
// stdin ends.
func serve(ctx context.Context, _ string) error {
	t, cert, err := transport(serverNode, clientNode, "")
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }() // always nil
	registerEcho(t)
	t.HandleBulk(sinkStream, func(_ context.Context, _ ics.Remote, _ []byte, s ics.Stream) { sink(s) })
	var listeners [3]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		defer listeners[i].Close()
	}
	tlsListener := tls.NewListener(listeners[1], plainTLS(cert))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = t.Serve(listeners[0]) })
	wg.Go(func() { acceptPlain(tlsListener) })
	wg.Go(func() { acceptPlain(listeners[2]) })
	err = json.NewEncoder(os.Stdout).Encode(addresses{
		ICS: listeners[0].Addr().String(), TLS: listeners[1].Addr().String(), TCP: listeners[2].Addr().String(),
	})
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	_, _ = listeners[1].Close(), listeners[2].Close()
	_ = t.Close()
	return err
}

// plainTLS is TLS 1.3 with certificates on both sides, as ics has it.
func plainTLS(cert *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // who it is does not matter here; what it costs does, so the chain is checked
		VerifyConnection: func(cs tls.ConnectionState) error {
			roots := x509.NewCertPool()
			roots.AddCert(cs.PeerCertificates[len(cs.PeerCertificates)-1])
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			return err
		},
	}
}

// acceptPlain serves connections until l is closed, and those until they end.
func acceptPlain(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			mode := make([]byte, 1)
			if _, err := io.ReadFull(c, mode); err != nil {
				return
			}
			if mode[0] == modeSink {
				sink(c)
				return
			}
			buf := make([]byte, messageSize)
			for {
				if _, err := io.ReadFull(c, buf); err != nil {
					return
				}
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		})
	}
}

// sink reads and forgets, in pieces as big as they are written.
func sink(r io.Reader) {
	buf := make([]byte, chunk)
	for {
		if _, err := r.Read(buf); err != nil {
			return
		}
	}
}

func registerEcho(t *ics.Transport) {
	t.Handle(echoMethod, ics.Unary(func(_ context.Context, in *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) { return in, nil }))
}

// otherSide starts the process that serves, and ends it.
func otherSide(s *site) (_ addresses, end func(), err error) {
	var a addresses
	if _, err := os.Stat(keyDir(serverNode)); err != nil {
		if err := makeKeys(); err != nil {
			return a, nil, err
		}
	}
	cmd := exec.Command(s.self, jobArg, jobServe, "{}")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return a, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return a, nil, err
	}
	if err := cmd.Start(); err != nil {
		return a, nil, err
	}
	end = func() {
		_ = in.Close()
		timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait() // its work is done
	}
	if err := json.NewDecoder(out).Decode(&a); err != nil {
		end()
		return a, nil, fmt.Errorf("the other side does not start: %w", errors.Join(err))
	}
	return a, end, nil
}
