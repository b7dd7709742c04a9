package httpboot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// ServeHTTP serves one request. It is for net/http.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		return
	}
	defer s.handlers.Done()
	begun := time.Now()
	out := &writer{ResponseWriter: w, control: http.NewResponseController(w), chunk: s.cfg.Limits.Chunk, head: r.Method == http.MethodHead}
	a := Access{Client: address(r.RemoteAddr), Method: r.Method, Path: r.URL.Path}
	a.Path = a.Path[:min(len(a.Path), MaxPath)]
	if mac, err := net.ParseMAC(r.URL.Query().Get("mac")); err == nil {
		a.MAC = mac
	}
	defer func() {
		a.Status, a.Bytes, a.Duration = out.status, out.sent, time.Since(begun)
		a.Size = max(a.Size, out.sent)
		if n, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64); err == nil && r.Method != http.MethodHead {
			a.Size = n
		}
		if s.cfg.Log != nil {
			s.cfg.Log(a)
		}
	}()
	a.Err = s.serve(out, r)
}

func (s *Server) serve(w *writer, r *http.Request) error {
	name, rooted := strings.CutPrefix(r.URL.Path, "/")
	switch {
	case !rooted || len(r.URL.Path) > MaxPath || len(r.Header.Values("Range")) > 1 || strings.Count(r.Header.Get("Range"), ",") >= MaxRanges:
		w.fail(http.StatusBadRequest, "this server does not understand the request")
		return nil
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, HEAD, POST")
		w.fail(http.StatusMethodNotAllowed, "only GET, HEAD and POST are served")
		return nil
	}
	if r.Method != http.MethodPost {
		f, info, err := s.cfg.Files.Open(name)
		if err == nil {
			defer func() { _ = f.Close() }()
			s.file(w, r, f, info)
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			// Not for ever: who serves it makes a new tree.
			w.Header().Set("Retry-After", "5")
			w.fail(http.StatusServiceUnavailable, "the file cannot be served now; try again")
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	s.dynamic(w, r, name)
	return nil
}

// file serves a file of the tree.
func (s *Server) file(w *writer, r *http.Request, f io.ReadSeeker, info fs.FileInfo) {
	h := w.Header()
	h.Set("Content-Type", contentType(info.Name()))
	// A machine that resumes after the tree was replaced must not mix two files.
	if sum, ok := info.Sys().([sha256.Size]byte); ok {
		h.Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	}
	h.Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", info.ModTime(), f)
}

// contentType is by the name: UEFI decides by it what it got.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".efi":
		return "application/efi"
	case ".ipxe", ".cfg", ".txt":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// dynamic asks the hook.
func (s *Server) dynamic(w *writer, r *http.Request, name string) {
	req := Request{Client: address(r.RemoteAddr), Method: r.Method, Path: name, Query: r.URL.Query()}
	if r.Method == http.MethodPost {
		body, err := io.ReadAll(http.MaxBytesReader(w.ResponseWriter, r.Body, MaxBody))
		var big *http.MaxBytesError
		switch {
		case errors.As(err, &big):
			w.fail(http.StatusRequestEntityTooLarge, fmt.Sprintf("a message has at most %d bytes", MaxBody))
			return
		case err != nil:
			w.fail(http.StatusBadRequest, "the message is cut off or came too slowly")
			return
		}
		req.Body = body
	}
	var res Response
	ok := false
	if s.cfg.Dynamic != nil {
		res, ok = s.cfg.Dynamic(r.Context(), req)
	}
	if !ok {
		w.fail(http.StatusNotFound, "there is no such file")
		return
	}
	if res.Type == "" {
		res.Type = "text/plain; charset=utf-8"
	}
	if res.Status == 0 {
		res.Status = http.StatusOK
	}
	w.answer(res.Status, res.Type, res.Body)
}

// writeChunk is how many bytes a client must take in Limits.Chunk.
const writeChunk = 256 << 10

// writer counts what is sent and gives each piece of it its time.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	chunk   time.Duration
	head    bool // HEAD: there is no body
	status  int
	sent    int64
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	w.begin()
	total := 0
	for len(b) > 0 {
		piece := b[:min(len(b), writeChunk)]
		w.extend()
		n, err := w.ResponseWriter.Write(piece)
		total, w.sent = total+n, w.sent+int64(n)
		if err != nil {
			return total, err
		}
		b = b[n:]
	}
	return total, nil
}

// ReadFrom sends a file piece by piece: net/http and the kernel do it without
// copying.
func (w *writer) ReadFrom(src io.Reader) (int64, error) {
	w.begin()
	// io.CopyN hands a LimitedReader; within another one the file would not be seen.
	rest, file := int64(1)<<62, src
	limited, ok := src.(*io.LimitedReader)
	if ok {
		rest, file = limited.N, limited.R
	}
	var total int64
	for rest > 0 {
		w.extend()
		want := min(rest, writeChunk)
		n, err := io.CopyN(w.ResponseWriter, file, want)
		total, rest, w.sent = total+n, rest-n, w.sent+n
		if ok {
			limited.N = rest
		}
		if errors.Is(err, io.EOF) {
			return total, nil // the end of src, as io.ReaderFrom wants it
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (w *writer) begin() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// extend gives the next piece its time.
func (w *writer) extend() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.chunk)) // it fails only on a dead connection
}

// fail answers with one line of text.
func (w *writer) fail(status int, text string) {
	w.answer(status, "text/plain; charset=utf-8", []byte(text+"\n"))
}

func (w *writer) answer(status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if !w.head {
		_, _ = w.Write(body) // the client may have gone
	}
}
