package httpboot

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestGet(t *testing.T) {
	data := random(3*writeChunk + 17)
	s, reports := server(t, Config{Files: files{"vmlinuz": file(t, data), "ssi.efi": file(t, data), "boot.ipxe": file(t, []byte("#!ipxe\n"))}})
	c := client(t, 1)
	res, b := do(t, c, s, "GET", "/vmlinuz?mac=52:54:00:00:00:01", nil)
	if res.StatusCode != 200 || !bytes.Equal(b, data) || res.ContentLength != int64(len(data)) || res.Header.Get("Content-Type") != "application/octet-stream" || res.Header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("%d bytes, %+v", len(b), res)
	}
	a := report(t, reports)
	if a.Status != 200 || a.Bytes != int64(len(data)) || a.Size != a.Bytes || a.MAC.String() != "52:54:00:00:00:01" || a.Path != "/vmlinuz" || a.Method != "GET" || !a.Client.Addr().IsLoopback() {
		t.Errorf("report %+v", a)
	}
	if len(res.Header.Get("ETag")) != 66 {
		t.Errorf("ETag %q is no SHA-256", res.Header.Get("ETag"))
	}
	// What UEFI HTTP boot asks first.
	res, b = do(t, c, s, "HEAD", "/ssi.efi", nil)
	if res.StatusCode != 200 || len(b) != 0 || res.ContentLength != int64(len(data)) || res.Header.Get("Content-Type") != "application/efi" {
		t.Errorf("HEAD: %+v", res)
	}
	if a := report(t, reports); a.Bytes != 0 || a.Size != 0 || a.Method != "HEAD" {
		t.Errorf("report of HEAD: %+v", a)
	}
	if res, _ = do(t, c, s, "GET", "/boot.ipxe", nil); !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("a script is %q", res.Header.Get("Content-Type"))
	}
	_ = report(t, reports)
	// All of that was one connection.
	first := a.Client
	_, _ = do(t, c, s, "GET", "/boot.ipxe", nil)
	if again := report(t, reports); again.Client != first {
		t.Errorf("the connection was not kept: %s, %s", first, again.Client)
	}
}

// Resuming: ranges, and If-Range with the old and a new ETag.
func TestRange(t *testing.T) {
	data := random(100000)
	s, _ := server(t, Config{Files: files{"f": file(t, data)}})
	c := client(t, 1)
	res, _ := do(t, c, s, "HEAD", "/f", nil)
	etag := res.Header.Get("ETag")
	for _, r := range []struct {
		headers []string
		status  int
		want    []byte
	}{
		{[]string{"Range", "bytes=0-9"}, 206, data[:10]},
		{[]string{"Range", "bytes=99990-"}, 206, data[99990:]},
		{[]string{"Range", "bytes=-5"}, 206, data[99995:]},
		{[]string{"Range", "bytes=5000-", "If-Range", etag}, 206, data[5000:]},
		{[]string{"Range", "bytes=5000-", "If-Range", `"other"`}, 200, data},
		{[]string{"Range", "bytes=100000-"}, 416, nil},
		{[]string{"Range", "bytes=x"}, 416, nil},
		{[]string{"If-None-Match", etag}, 304, nil},
		{[]string{"Range", "bytes=0-0" + strings.Repeat(",2-2", MaxRanges)}, 400, nil},
	} {
		res, b := do(t, c, s, "GET", "/f", nil, r.headers...)
		if res.StatusCode != r.status || r.want != nil && !bytes.Equal(b, r.want) {
			t.Errorf("%q: status %d, %d bytes", r.headers, res.StatusCode, len(b))
		}
	}
	// Several ranges at once, fewer than too many.
	res, b := do(t, c, s, "GET", "/f", nil, "Range", "bytes=0-9,20-29")
	if res.StatusCode != 206 || !strings.HasPrefix(res.Header.Get("Content-Type"), "multipart/byteranges") || !bytes.Contains(b, data[20:30]) {
		t.Errorf("two ranges: %d, %q", res.StatusCode, res.Header.Get("Content-Type"))
	}
}

// A hundred ranges at once are the file.
func TestParallelRanges(t *testing.T) {
	const n, size = 100, 40000
	data := random(n*size - 123)
	s, _ := server(t, Config{Files: files{"f": file(t, data)}, Limits: Limits{PerClient: n}})
	c := client(t, n)
	got := make([]byte, len(data))
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			from, to := i*size, min((i+1)*size, len(data))
			res, b := do(t, c, s, "GET", "/f", nil, "Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
			if res.StatusCode != http.StatusPartialContent || len(b) != to-from {
				t.Errorf("range %d: status %d, %d bytes", i, res.StatusCode, len(b))
			}
			copy(got[from:], b)
		})
	}
	wg.Wait()
	if !bytes.Equal(got, data) {
		t.Error("the ranges are not the file")
	}
}

func TestDynamic(t *testing.T) {
	s, reports := server(t, Config{Files: files{"f": file(t, []byte("x"))}})
	c := client(t, 1)
	for _, r := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/echo?mac=02:00:00:00:00:01", "", 200, "GET 02:00:00:00:00:01 "},
		{"POST", "/v1/echo", "hello", 200, "POST  hello"},
		{"POST", "/v1/echo", strings.Repeat("x", MaxBody), 200, "POST  " + strings.Repeat("x", MaxBody)},
		{"POST", "/v1/echo", strings.Repeat("x", MaxBody+1), 413, "a message has at most 65536 bytes\n"},
		{"HEAD", "/v1/echo", "", 200, ""},
		{"GET", "/v1/denied", "", 403, "not approved"},
		{"GET", "/v1/none", "", 404, "there is no such file\n"},
		{"POST", "/f", "x", 404, "there is no such file\n"}, // files are not for messages
		{"PUT", "/f", "x", 405, "only GET, HEAD and POST are served\n"},
		{"DELETE", "/f", "", 405, "only GET, HEAD and POST are served\n"},
		{"OPTIONS", "/f", "", 405, "only GET, HEAD and POST are served\n"},
		{"GET", "/broken", "", 503, "the file cannot be served now; try again\n"},
	} {
		res, b := do(t, c, s, r.method, r.path, []byte(r.body))
		if res.StatusCode != r.status || string(b) != r.want {
			t.Errorf("%s %s: %d %.60q", r.method, r.path, res.StatusCode, b)
		}
		if a := report(t, reports); a.Status != r.status || (a.Err != nil) != (r.status == 503) {
			t.Errorf("%s %s: report %+v", r.method, r.path, a)
		}
	}
}

// No path but those of the tree gives a file, however it is written.
func TestRoguePaths(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"vmlinuz", "secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s, reports := server(t, Config{Files: files{"vmlinuz": filepath.Join(dir, "vmlinuz")}})
	for _, path := range []string{
		"/", "//", "/secret", "/link", "/../secret", "/vmlinuz/../secret", "/vmlinuz/", "//vmlinuz", "/./vmlinuz", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/..%5csecret",
		"/%00", "/vmlinuz%00", "/vmlinuz%00.efi", "/VMLINUZ", "/" + dir + "/secret", "//etc/passwd", "/etc/passwd", "/%2fetc/passwd", "/file:///etc/passwd", "/vmlinuz%20", "/vmlinuz;x", "/%c0%ae%c0%ae/secret",
		"/" + strings.Repeat("../", 300) + "etc/passwd", "/" + strings.Repeat("a", MaxPath-1),
	} {
		if got := raw(t, s, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); got != "HTTP/1.1 404 Not Found" {
			t.Errorf("%.60q: %q", path, got)
		}
		if a := report(t, reports); a.Status != 404 || len(a.Path) > MaxPath {
			t.Errorf("%.60q: %+v", path, a)
		}
	}
	if got := raw(t, s, "GET /"+strings.Repeat("a", MaxPath)+" HTTP/1.1\r\nHost: x\r\n\r\n"); got != "HTTP/1.1 400 Bad Request" {
		t.Errorf("very long: %q", got)
	}
	if got := raw(t, s, "GET http://other/vmlinuz HTTP/1.1\r\nHost: other\r\n\r\n"); got != "HTTP/1.1 200 OK" {
		t.Errorf("as to a proxy: %q", got) // RFC 9112 3.2.2: a server must take it
	}
}
