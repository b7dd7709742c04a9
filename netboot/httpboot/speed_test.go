package httpboot

import (
	"bufio"
	"io"
	"net/http"
	"testing"
)

// BenchmarkGet is one client that fetches a kernel over loopback again and
// again on one connection.
func BenchmarkGet(b *testing.B) {
	const size = 16 << 20
	s, _ := server(b, Config{Files: files{"vmlinuz": file(b, random(size))}, Log: func(Access) {}})
	c := dial(b, s)
	in := bufio.NewReader(c)
	buf := make([]byte, 1<<20)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := io.WriteString(c, "GET /vmlinuz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			b.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{res.Body}, buf); n != size || err != nil {
			b.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// BenchmarkScript is many clients that ask for what is made for them.
func BenchmarkScript(b *testing.B) {
	s, _ := server(b, Config{Files: files{}, Log: func(Access) {}})
	c := client(b, 16)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if res, _ := do(b, c, s, "GET", "/v1/echo?mac=52:54:00:00:00:01", nil); res.StatusCode != http.StatusOK {
				b.Errorf("status %d", res.StatusCode)
			}
		}
	})
}
