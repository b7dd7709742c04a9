package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

// etcd is a cluster of etcd with its default timings: a heartbeat of 100 ms, an
// election after 1 s. Its data is in memory, as that of the lab's nodes is; its
// members talk without TLS.
type etcd struct {
	members [nodes]*etcdMember
}

type etcdMember struct {
	i    int
	cmd  *exec.Cmd // nil when it does not run
	conn *grpc.ClientConn
}

const etcdTries = 20 * time.Second // for a cluster to have a leader

func etcdURL(i, port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port+10*i) }

// startEtcd starts the members and waits until they have a leader.
func startEtcd(ctx context.Context) (_ *etcd, err error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return nil, errors.New("no etcd: apt-get install etcd-server")
	}
	if err := os.RemoveAll(etcdDir); err != nil {
		return nil, err
	}
	e := &etcd{}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	for i := range e.members {
		m := &etcdMember{i: i}
		e.members[i] = m
		addr := strings.TrimPrefix(etcdURL(i, 2379), "http://")
		if m.conn, err = grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second})); err != nil {
			return nil, err
		}
		if err := m.start(); err != nil {
			return nil, err
		}
	}
	return e, e.await(ctx)
}

// close ends all members; it may be called again.
func (e *etcd) close() {
	for _, m := range e.members {
		if m != nil {
			m.kill()
			_ = m.conn.Close() // nothing is called any more
		}
	}
}

func (m *etcdMember) start() error {
	var initial []string
	for i := range nodes {
		initial = append(initial, fmt.Sprintf("m%d=%s", i, etcdURL(i, 2380)))
	}
	cmd := exec.Command("etcd", "--name", "m"+strconv.Itoa(m.i), "--data-dir", filepath.Join(etcdDir, strconv.Itoa(m.i)),
		"--listen-client-urls", etcdURL(m.i, 2379), "--advertise-client-urls", etcdURL(m.i, 2379),
		"--listen-peer-urls", etcdURL(m.i, 2380), "--initial-advertise-peer-urls", etcdURL(m.i, 2380),
		"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
		"--logger", "zap", "--log-level", "panic")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "ETCD_UNSUPPORTED_ARCH=arm64"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.cmd = cmd
	return nil
}

// kill is kill -9, and waits.
func (m *etcdMember) kill() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait() // it was killed
		m.cmd = nil
	}
}

// await waits until all members follow the same leader and take a write.
func (e *etcd) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, etcdTries)
	defer cancel()
	for {
		_, err := e.leader(ctx)
		if err == nil {
			err = e.members[0].put(ctx, "ready", "")
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("etcd is not ready in time: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// leader is the member that all of them follow.
func (e *etcd) leader(ctx context.Context) (*etcdMember, error) {
	ids := map[uint64]*etcdMember{}
	leader := uint64(0)
	for i, m := range e.members {
		// Fields of etcdserverpb.StatusResponse, and of its header.
		reply, err := m.call(ctx, "/etcdserverpb.Maintenance/Status", nil)
		if err != nil {
			return nil, err
		}
		const fieldHeader, fieldLeader, fieldMember = 1, 4, 2
		header, _ := protoBytes(reply, fieldHeader)
		ids[protoNumber(header, fieldMember)] = m
		of := protoNumber(reply, fieldLeader)
		if of == 0 || i > 0 && of != leader {
			return nil, errors.New("no common leader")
		}
		leader = of
	}
	if m := ids[leader]; m != nil {
		return m, nil
	}
	return nil, errors.New("the leader is no member")
}

// put writes a key.
func (m *etcdMember) put(ctx context.Context, key, value string) error {
	return putOn(ctx, m.conn, key, value)
}

// putOn sends an etcdserverpb.PutRequest.
func putOn(ctx context.Context, conn *grpc.ClientConn, key, value string) error {
	const fieldKey, fieldValue = 1, 2
	var b []byte
	b = protowire.AppendString(protowire.AppendTag(b, fieldKey, protowire.BytesType), key)
	b = protowire.AppendString(protowire.AppendTag(b, fieldValue, protowire.BytesType), value)
	return conn.Invoke(ctx, "/etcdserverpb.KV/Put", &b, new([]byte), grpc.ForceCodec(rawCodec{}))
}

func (m *etcdMember) call(ctx context.Context, method string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var reply []byte
	err := m.conn.Invoke(ctx, method, &request, &reply, grpc.ForceCodec(rawCodec{}))
	return reply, err
}

// rawCodec passes messages that are bytes already.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("a %T is no message", v)
	}
	return *b, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a %T is no message", v)
	}
	*b = append([]byte(nil), data...)
	return nil
}

// protoBytes finds a field of bytes in a message, the last one.
func protoBytes(msg []byte, field protowire.Number) (value []byte, ok bool) {
	eachField(msg, func(n protowire.Number, b []byte, _ uint64) {
		if n == field && b != nil {
			value, ok = b, true
		}
	})
	return value, ok
}

// protoNumber finds a number in a message; 0 when it is not there.
func protoNumber(msg []byte, field protowire.Number) (value uint64) {
	eachField(msg, func(n protowire.Number, b []byte, v uint64) {
		if n == field && b == nil {
			value = v
		}
	})
	return value
}

// eachField goes over a message until it ends or is damaged.
func eachField(msg []byte, f func(n protowire.Number, b []byte, v uint64)) {
	for len(msg) > 0 {
		n, typ, l := protowire.ConsumeTag(msg)
		if l < 0 {
			return
		}
		msg = msg[l:]
		switch typ {
		case protowire.VarintType:
			v, l := protowire.ConsumeVarint(msg)
			if l < 0 {
				return
			}
			f(n, nil, v)
			msg = msg[l:]
		case protowire.BytesType:
			b, l := protowire.ConsumeBytes(msg)
			if l < 0 {
				return
			}
			f(n, append([]byte{}, b...), 0)
			msg = msg[l:]
		default:
			l := protowire.ConsumeFieldValue(n, typ, msg)
			if l < 0 {
				return
			}
			msg = msg[l:]
		}
	}
}
