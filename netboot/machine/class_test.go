package machine

import (
	"strings"
	"testing"
	"time"

	"ssi/internal/api"
)

// A class that nobody makes an initramfs for is refused in every way to give it;
// one that was given before stays.
func TestUnknownClass(t *testing.T) {
	w := newWorld(t)
	if _, err := w.table.Add(t.Context(), []api.MachineSpec{{MACs: []string{mac(1).String()}, Class: "old"}}); err != nil {
		t.Fatal(err)
	}
	w.table.Classes = []string{"vm", "server"}
	if _, err := w.table.Add(t.Context(), []api.MachineSpec{{MACs: []string{mac(2).String()}, Class: "vm"}}); err != nil {
		t.Errorf("a known class: %v", err)
	}
	toaster := "toaster"
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), toaster) || !strings.Contains(err.Error(), "vm, server") {
			t.Errorf("%s: error %v", what, err)
		}
	}
	_, err := w.table.Add(t.Context(), []api.MachineSpec{{MACs: []string{mac(3).String()}, Class: toaster}})
	refused("add", err)
	_, err = w.table.Change(t.Context(), mac(2).String(), api.MachineChange{Class: &toaster})
	refused("change", err)
	_, err = w.table.AllowNext(t.Context(), api.MachineNextParams{Count: 1, For: time.Hour, Spec: api.MachineSpec{Class: toaster}})
	refused("next", err)
}
