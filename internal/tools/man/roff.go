package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ssi/applet"
)

// roff writes the man(7) macros of one page.
type roff struct{ bytes.Buffer }

// escape makes text literal: a line must not begin like a request, dashes stay
// the dashes that people type, and what is not ASCII becomes groff_char(7).
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
	var b strings.Builder
	for _, c := range s {
		if c < 0x80 {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, c)
		}
	}
	s = b.String()
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func (r *roff) header(name, short string) {
	fmt.Fprintf(r, ".TH %s 1 \"\" ssi \"ssi commands\"\n", strings.ToUpper(name))
	r.section("NAME")
	fmt.Fprintf(r, "%s \\- %s\n", escape(name), escape(short))
}

func (r *roff) section(name string) { fmt.Fprintf(r, ".SH %s\n", name) }

// item is a term and what it means.
func (r *roff) item(term, text string) {
	fmt.Fprintf(r, ".TP\n.B %s\n%s\n", escape(term), escape(text))
}

// prose writes paragraphs; indented lines keep their form.
func (r *roff) prose(text string) {
	literal := false
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, " ")
		switch {
		case indented && !literal:
			r.WriteString(".RS 2\n.nf\n")
		case !indented && literal:
			r.WriteString(".fi\n.RE\n")
		}
		literal = indented
		if line == "" {
			r.WriteString(".PP\n")
			continue
		}
		fmt.Fprintln(r, escape(strings.TrimPrefix(line, "  ")))
	}
	if literal {
		r.WriteString(".fi\n.RE\n")
	}
}

func (r *roff) options(cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	if !cmd.HasAvailableLocalFlags() {
		return
	}
	r.section("OPTIONS")
	option := func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		if value != "" {
			term += " " + value
		}
		switch f.DefValue {
		case "", "false", "0", "[]":
		default:
			usage += " (default " + f.DefValue + ")"
		}
		r.item(term, usage)
	}
	cmd.LocalFlags().VisitAll(option)
	cmd.InheritedFlags().VisitAll(option)
}

func (r *roff) seeAlso(refs []string) {
	if len(refs) == 0 {
		return
	}
	r.section("SEE ALSO")
	for i, ref := range refs {
		name, _ := strings.CutSuffix(ref, "(1)")
		comma := ","
		if i == len(refs)-1 {
			comma = ""
		}
		fmt.Fprintf(r, ".BR %s (1)%s\n", escape(name), comma)
	}
}

// page is the manual of one command.
func page(name string, cmd *cobra.Command) []byte {
	var r roff
	r.header(name, cmd.Short)
	r.section("SYNOPSIS")
	fmt.Fprintf(&r, ".B %s\n", escape(cmd.UseLine()))
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&r, ".br\n.B %s\n", escape(cmd.CommandPath()+" COMMAND …"))
	}
	r.section("DESCRIPTION")
	r.prose(cmd.Long)
	if cmd.HasAvailableSubCommands() {
		r.section("COMMANDS")
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				r.item(sub.Name(), sub.Short+"; see "+name+"-"+sub.Name()+"(1)")
			}
		}
	}
	r.options(cmd)
	exit, seeAlso := applet.ManualOf(cmd)
	if len(exit) > 0 {
		r.section("EXIT STATUS")
		for _, line := range exit {
			r.item(line[0], line[1])
		}
	}
	if cmd.Example != "" {
		r.section("EXAMPLES")
		r.WriteString(".nf\n")
		for line := range strings.Lines(cmd.Example) {
			r.WriteString(escape(strings.TrimPrefix(strings.TrimRight(line, "\n"), "  ")) + "\n")
		}
		r.WriteString(".fi\n")
	}
	r.seeAlso(seeAlso)
	return r.Bytes()
}

// overview is the manual of the program itself.
func overview(root *cobra.Command, table []applet.Entry) []byte {
	var r roff
	r.header("ssi", root.Short)
	r.section("SYNOPSIS")
	fmt.Fprintf(&r, ".B %s\n", escape(root.UseLine()))
	r.section("DESCRIPTION")
	r.prose(root.Long)
	for _, group := range applet.Groups() {
		title := false
		for _, e := range table {
			if e.Group != group {
				continue
			}
			if !title {
				r.section(strings.ToUpper(string(group)))
				title = true
			}
			r.item(e.Name, e.Short)
		}
	}
	r.options(root)
	r.section("FILES")
	r.item("/etc/ssi/ssi.toml", "the configuration of this node")
	r.item("/etc/ssi/nodeup.d, /etc/ssi/nodedown.d", "programs that run when a node comes or goes")
	r.item("/var/lib/ssi", "certificates and the log of the consensus")
	r.item("/run/ssi/ssi.sock", "where the commands reach the daemon; SSI_SOCKET names another")
	r.section("ENVIRONMENT")
	r.item("SSI_SOCKET", "the socket of the daemon, instead of /run/ssi/ssi.sock")
	r.item("SSI_LOCALVIEW", "when set, commands show their own node only; see localview(1)")
	r.item("SSI_NODE", "set in programs that onnode and its kind run: the number of their node")
	return r.Bytes()
}
