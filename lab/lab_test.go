package lab

import (
	"os"
	"strings"
	"testing"
	"time"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces and mounts")
	}
}

func TestFirst(t *testing.T) {
	needRoot(t)
	t0 := time.Now()
	l, err := Start(t.Context(), Options{Name: "t-first"})
	if err != nil {
		t.Fatal(err)
	}
	t.Log("up", time.Since(t0))
	t0 = time.Now()
	out, code, err := l.Exec(t.Context(), 2, "sh", "-c", "hostname; ip a; mount; ps aux; cat /etc/ssi/*; ls -l /dev /; cat /proc/self/cgroup; which fake-applet; fake-applet")
	t.Log("exec", time.Since(t0))
	t.Logf("%s %d %v", out, code, err)
	var b strings.Builder
	_ = l.Logs(t.Context(), 1, false, &b)
	t.Log(b.String())
	st, _ := l.Status(t.Context())
	t.Logf("%+v", st)
	t0 = time.Now()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Log("close", time.Since(t0))
}
