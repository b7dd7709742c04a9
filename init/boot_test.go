package pid1

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ssi/internal/keeper"
	"ssi/internal/proc"
)

// testBoot is the role boot of a PID namespace: it notes its lives and ends as
// the file "boot" in TEST_DIR says, a line for each life.
func testBoot(log *slog.Logger, args []string) int {
	dir := os.Getenv("TEST_DIR")
	appendLine(dir, "boots", "boot "+strings.Join(args, " "))
	b, _ := os.ReadFile(filepath.Join(dir, "boots"))
	plan, _ := os.ReadFile(filepath.Join(dir, "plan"))
	lives, lines := strings.Count(string(b), "\n"), strings.Split(string(plan), "\n")
	if lives > len(lines) {
		return 0
	}
	what := lines[lives-1]
	if n, err := strconv.Atoi(what); err == nil {
		return n
	}
	k, err := keeper.Open(log, func(proc.Exit) {})
	if err != nil {
		return 1
	}
	switch what {
	case "panic":
		panic("a crash")
	case "reboot":
		err = k.Shutdown(keeper.Reboot)
	case "root":
		err = k.SwitchRoot("/no/such/program")
	case "respawn":
		if k.RestartSpawn() == nil || k.Put("x", os.Stdin) != nil {
			return 1
		}
	}
	if err != nil {
		return 1
	}
	return 0
}

// boots starts PID 1 with a plan for the lives of the role boot and returns their
// arguments once the node role runs.
func boots(t *testing.T, plan ...string) (*box, []string) {
	t.Helper()
	x := startWith(t, true, func(x *box) {
		if err := os.WriteFile(filepath.Join(x.dir, "plan"), []byte(strings.Join(plan, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		x.cmd.Env = append(x.cmd.Env, "TEST_BOOT=1")
	})
	return x, strings.Split(strings.TrimSuffix(x.read("boots"), "\n"), "\n")
}

func TestBootThenRoles(t *testing.T) {
	_, lives := boots(t, "0")
	if len(lives) != 1 {
		t.Errorf("%q", lives)
	}
}

func TestBootMayNotRespawn(t *testing.T) {
	_, lives := boots(t, "respawn")
	if len(lives) != 1 {
		t.Errorf("%q", lives)
	}
}

// The role boot may crash: it is tried again, then there is its shell, and then
// the machine goes on.
func TestBootCrashes(t *testing.T) {
	_, lives := boots(t, "panic", "5", "panic", "0")
	if len(lives) != 4 || !strings.HasPrefix(lives[3], "boot emergency the role boot ended 3 times: exit status 2") {
		t.Errorf("%q", lives)
	}
	_, lives = boots(t, "1", "1", "1", "1", "1", "1", "1")
	if len(lives) != 2*maxFailures {
		t.Errorf("a shell that crashes, too: %q", lives)
	}
}

// A new root that cannot be used leads to the shell, and to another try.
func TestBootBadRoot(t *testing.T) {
	_, lives := boots(t, "root", "0", "0")
	if len(lives) != 3 || !strings.HasPrefix(lives[1], "boot emergency the new root cannot be used: ") || lives[2] != "boot " {
		t.Errorf("%q", lives)
	}
}
