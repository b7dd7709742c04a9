package core

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
)

// kv is the replicated machine of the tests: registers, and a count of how often
// each command, by its unique name, was carried out.
type kv struct {
	Values map[string]string
	Counts map[string]int
	Index  uint64
	Hash   uint64 // of everything applied, in order

	onApply func(index, hash uint64, name string, count int)
}

func newKV() *kv { return &kv{Values: map[string]string{}, Counts: map[string]int{}} }

// putCommand sets key to value; name is unique among all commands of a run.
func putCommand(name, key, value string) []byte { return []byte(name + "|" + key + "|" + value) }

func (k *kv) Apply(index uint64, cmd []byte) []byte {
	parts := strings.SplitN(string(cmd), "|", 3)
	if len(parts) != 3 {
		return []byte("bad")
	}
	k.Counts[parts[0]]++
	k.Values[parts[1]] = parts[2]
	k.Index = index
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d %s", k.Hash, index, cmd)
	k.Hash = h.Sum64()
	if k.onApply != nil {
		k.onApply(index, k.Hash, parts[0], k.Counts[parts[0]])
	}
	return []byte(fmt.Sprint(index))
}

func (k *kv) Snapshot() ([]byte, error) { return json.Marshal(k) }

func (k *kv) Restore(b []byte) error {
	f := k.onApply
	*k = kv{Values: map[string]string{}, Counts: map[string]int{}}
	if err := json.Unmarshal(b, k); err != nil {
		return err
	}
	k.onApply = f
	return nil
}
