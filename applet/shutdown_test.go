package applet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"ssi/internal/api"
	"ssi/internal/keeper"
)

// What ends the machine asks for the right end, and only if the command line makes
// sense. Nothing here comes near a real process 1.
func TestEnd(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"poweroff", "power off false"},
		{"poweroff -f", "power off true"},
		{"halt", "halt false"},
		{"reboot", "reboot false"},
		{"reboot --force", "reboot true"},
		{"reboot --kernel /no/such/file", "reboot: load kernel: open /no/such/file: no such file or directory"},
		{"reboot --initrd /x", "reboot: --initrd and --append go with --kernel"},
		{"reboot -k --kernel /x", "reboot: --kexec and --kernel exclude each other"},
		{"reboot now", "reboot: "},
		{"shutdown now", "power off false"},
		{"shutdown -h now", "power off false"},
		{"shutdown -P now", "power off false"},
		{"shutdown -H now", "halt false"},
		{"shutdown -r now a reason", "reboot false"},
		{"shutdown -r", "shutdown: no daemon"},
		{"shutdown -c", "shutdown: no daemon"},
		{"shutdown -c now", "shutdown: -c takes no time"},
		{"shutdown -r -H now", "shutdown: --halt and --reboot exclude each other"},
		{"shutdown soon", `shutdown: "soon" is no time`},
	} {
		var out, errOut bytes.Buffer
		env := &Env{
			Args: strings.Fields(c.line), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut,
			Getenv: func(string) string { return "" }, Version: "test", Now: testNow,
			Dial: func(context.Context) (*api.Client, error) { return nil, errors.New("no daemon") },
			End: func(e keeper.Ending, force bool) error {
				_, err := fmt.Fprintln(&out, e, force)
				return err
			},
		}
		status := Main(env, Table())
		got := out.String() + errOut.String()
		if !strings.HasPrefix(got, c.want) || (status == 0) != (strings.HasSuffix(c.want, " true") || strings.HasSuffix(c.want, " false")) {
			t.Errorf("%s: status %d, %q; want %q", c.line, status, got, c.want)
		}
	}
}
