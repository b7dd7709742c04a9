package registry

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"ssi/internal/errno"
)

func TestKeys(t *testing.T) {
	long := "/" + string(slices.Repeat([]byte{'k'}, MaxKey-1))
	for _, k := range []string{"/a", "/a/b", "/a b", "/ä/日本", "/a.b/..c", long} {
		if err := CheckKey(k); err != nil {
			t.Errorf("%q: %v", k, err)
		}
	}
	for _, k := range []string{"", "/", "a", "a/b", "/a/", "//a", "/a//b", "/./a", "/a/..", "/a\n", "/a\x00", "/a\xff", "/a\u200b", long + "k"} {
		if err := CheckKey(k); !errno.Is(err, errno.Invalid) {
			t.Errorf("%q: %v", k, err)
		}
	}
	for _, p := range []string{"", "/", "/a", "/a/", "/a/b/"} {
		if err := CheckPrefix(p); err != nil {
			t.Errorf("prefix %q: %v", p, err)
		}
	}
	for _, p := range []string{"a", "//", "/a//", "/../", long + "/"} {
		if err := CheckPrefix(p); err == nil {
			t.Errorf("prefix %q was accepted", p)
		}
	}
	for _, c := range []struct {
		prefix, key string
		want        bool
	}{
		{"", "/a", true}, {"/", "/a", true}, {"/a", "/a", true}, {"/a", "/a/b", true}, {"/a", "/ab", false},
		{"/a", "/a-b", false}, {"/a/", "/a", false}, {"/a/", "/a/b", true}, {"/a/b", "/a", false},
	} {
		if got := Under(c.prefix, c.key); got != c.want {
			t.Errorf("Under(%q, %q) = %v", c.prefix, c.key, got)
		}
	}
}

func TestWrites(t *testing.T) {
	s := NewStore()
	if put(t, s, "/a", "1") != 1 || put(t, s, "/b", "2") != 2 || put(t, s, "/a", "3") != 3 {
		t.Error("revisions are not counted by one")
	}
	e, err := s.View().Get("/a")
	if err != nil || string(e.Value) != "3" || e.Create != 1 || e.Mod != 3 || e.Version != 2 {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := s.View().Get("/c"); !errno.Is(err, errno.NotFound) {
		t.Error(err)
	}
	if _, err := s.View().Get("c"); !errno.Is(err, errno.Invalid) {
		t.Error(err)
	}

	// Compare and swap.
	err = refused(t, s, errno.Exists, txn(t, []*Compare{Check("/a", 1)}, PutOp("/a", []byte("4"), 0)))
	var c *ConflictError
	if !errors.As(err, &c) || c.Key != "/a" || c.Revision != 3 {
		t.Errorf("%v", err)
	}
	refused(t, s, errno.Exists, txn(t, []*Compare{Check("/a", 0)}, PutOp("/a", nil, 0)))
	refused(t, s, errno.Exists, txn(t, []*Compare{Check("/c", 1)}, PutOp("/c", nil, 0)))
	do(t, s, txn(t, []*Compare{Check("/a", 3), Check("/c", 0)}, PutOp("/a", []byte("4"), 0), DeleteOp("/b"), PutOp("/c", nil, 0)))
	if got, want := dump(t, s), "rev 4 keys 2 bytes 5 last lease 0 []\n/a=\"4\" 1 4 3 0\n/c=\"\" 4 4 1 0"; got != want {
		t.Errorf("got %s", got)
	}

	// What changes nothing gets no revision.
	if res := do(t, s, txn(t, nil, DeleteOp("/zzz"))); res.Revision != 4 || res.Deleted != 0 {
		t.Error(res)
	}
	if res := do(t, s, txn(t, []*Compare{Check("/a", 4)})); res.Revision != 4 {
		t.Error(res)
	}
	if res := do(t, s, txn(t, nil, DeleteOp("/a"))); res.Revision != 5 || res.Deleted != 1 {
		t.Error(res)
	}
}

func TestRefusals(t *testing.T) {
	s := NewStore()
	put(t, s, "/a", "1")
	big := make([]byte, MaxValue+1)
	many := make([]*Op, MaxOps+1)
	checks := make([]*Compare, MaxOps+1)
	for i := range many {
		many[i] = PutOp(fmt.Sprintf("/k%d", i), nil, 0)
		checks[i] = Check("/x", 0)
	}
	for name, c := range map[string]struct {
		kind errno.Kind
		cmd  []byte
	}{
		"bad key":          {errno.Invalid, raw(t, nil, PutOp("a", nil, 0))},
		"bad key delete":   {errno.Invalid, raw(t, nil, DeleteOp("/a/"))},
		"bad key check":    {errno.Invalid, raw(t, []*Compare{Check("", 0)})},
		"bad prefix":       {errno.Invalid, raw(t, nil, &Op{Kind: &Op_DeletePrefix{DeletePrefix: &DeletePrefix{Prefix: "a"}}})},
		"big value":        {errno.Invalid, raw(t, nil, PutOp("/big", big, 0))},
		"no operation":     {errno.Invalid, raw(t, nil, &Op{})},
		"twice":            {errno.Invalid, raw(t, nil, PutOp("/t", nil, 0), DeleteOp("/t"))},
		"prefix and more":  {errno.Invalid, raw(t, nil, PutOp("/t", nil, 0), &Op{Kind: &Op_DeletePrefix{DeletePrefix: &DeletePrefix{Prefix: "/a"}}})},
		"many operations":  {errno.Invalid, raw(t, nil, many...)},
		"many comparisons": {errno.Invalid, raw(t, checks)},
		"half good":        {errno.Invalid, raw(t, nil, PutOp("/good", nil, 0), PutOp("bad", nil, 0))},
		"no lease":         {errno.NotFound, raw(t, nil, PutOp("/l", nil, 7))},
		"system key":       {errno.Permission, raw(t, nil, PutOp("/sys/x", nil, 0))},
		"system root":      {errno.Permission, raw(t, nil, DeleteOp("/sys"))},
		"system prefix":    {errno.Permission, deletePrefix(t, "/sys/a", 0)},
		"all":              {errno.Permission, deletePrefix(t, "/", 0)},
		"garbage":          {errno.Invalid, []byte("garbage")},
		"empty":            {errno.Invalid, nil},
		"too long":         {errno.Invalid, make([]byte, MaxCommand+1)},
		"short lease":      {errno.Invalid, EncodeGrant(1, time.Millisecond)},
		"long lease":       {errno.Invalid, EncodeGrant(1, MaxTTL+time.Second)},
		"lease of none":    {errno.Invalid, EncodeGrant(0, time.Second)},
		"renew":            {errno.NotFound, EncodeRenew(1)},
		"revoke":           {errno.NotFound, EncodeRevoke(1)},
		"expire":           {errno.NotFound, EncodeExpire(1, 0)},
	} {
		t.Run(name, func(t *testing.T) { refused(t, s, c.kind, c.cmd) })
	}
	sys, err := EncodeTxn(true, nil, PutOp("/sys/x", []byte("1"), 0), PutOp("/system", nil, 0))
	if err != nil {
		t.Fatal(err)
	}
	do(t, s, sys)
	refused(t, s, errno.Permission, deletePrefix(t, "/sys", 0))
	if res := do(t, s, deletePrefix(t, "/system", 0)); res.Deleted != 1 {
		t.Error(res)
	}
	for _, err := range []error{
		second(EncodeTxn(false, nil, PutOp("a", nil, 0))), second(EncodeTxn(false, []*Compare{Check("a", 0)})),
		second(EncodeTxn(false, nil, PutOp("/a", big, 0))), second(EncodeDeletePrefix(false, "a", 0)),
		second(EncodeTxn(false, nil, PutOp("/a", big[:MaxValue], 0), PutOp("/b", big[:MaxValue], 0), PutOp("/c", big[:MaxValue], 0), PutOp("/d", big[:MaxValue], 0))),
	} {
		if !errno.Is(err, errno.Invalid) {
			t.Errorf("encoded: %v", err)
		}
	}
}

func second(_ []byte, err error) error { return err }

func TestList(t *testing.T) {
	s := NewStore()
	for _, k := range []string{"/a", "/a-b", "/a/b", "/a/b/c", "/a/d", "/ab", "/b"} {
		put(t, s, k, k)
	}
	for _, c := range []struct {
		prefix string
		limit  int
		after  string
		want   []string
		more   bool
	}{
		{"", 0, "", []string{"/a", "/a-b", "/a/b", "/a/b/c", "/a/d", "/ab", "/b"}, false},
		{"/", 3, "", []string{"/a", "/a-b", "/a/b"}, true},
		{"/", 3, "/a/b", []string{"/a/b/c", "/a/d", "/ab"}, true},
		{"/", 3, "/a/d", []string{"/ab", "/b"}, false},
		{"/a", 0, "", []string{"/a", "/a/b", "/a/b/c", "/a/d"}, false},
		{"/a", 1, "", []string{"/a"}, true},
		{"/a", 2, "/a", []string{"/a/b", "/a/b/c"}, true},
		{"/a", 0, "/a-b", []string{"/a/b", "/a/b/c", "/a/d"}, false},
		{"/a/", 0, "", []string{"/a/b", "/a/b/c", "/a/d"}, false},
		{"/a/", 0, "/a/d", []string{}, false},
		{"/a/", 0, "/zz", []string{}, false},
		{"/a/b", 0, "", []string{"/a/b", "/a/b/c"}, false},
		{"/x", 0, "", []string{}, false},
	} {
		got, more, err := s.View().List(c.prefix, c.limit, c.after)
		if err != nil || !slices.Equal(keys(got), c.want) || more != c.more {
			t.Errorf("List(%q, %d, %q) = %v, %v, %v", c.prefix, c.limit, c.after, keys(got), more, err)
		}
	}
	if _, _, err := s.View().List("a", 0, ""); !errno.Is(err, errno.Invalid) {
		t.Error(err)
	}
	if res := do(t, s, deletePrefix(t, "/a", 3)); res.Deleted != 3 || !res.More || res.Revision != 8 {
		t.Error(res)
	}
	if res := do(t, s, deletePrefix(t, "/a", 3)); res.Deleted != 1 || res.More {
		t.Error(res)
	}
	left, _, _ := s.View().List("", 0, "")
	if !slices.Equal(keys(left), []string{"/a-b", "/ab", "/b"}) {
		t.Error(keys(left))
	}
}
