package applet

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"ssi/internal/api"
	"ssi/internal/errno"
)

const (
	// maxValue is the size limit of a value in bytes; the registry has the
	// same one and has the last word.
	maxValue = 256 << 10
	// statusCompare is the exit status when a comparison failed.
	statusCompare = 3
)

const exitClreg = "0 success\n1 failure; also: there is no such key, or no such lease\n2 the command line makes no sense\n3 the comparison failed: the key was changed meanwhile, or exists"

func newClreg(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clreg COMMAND",
		Short: "read, write and watch the registry of the cluster",
		Long: `The registry keeps small things that every node must agree on: keys like /a/b
with values of at most 256 KiB. What was written is on the disks of most voters
before the command ends, and every later read on any node sees it. Every change
has a revision, one number for the whole registry.

Anyone may read; writing is for root. Keys under /sys/ belong to ssi.`,
		Example: `  clreg put /app/leader node1
  clreg get /app/leader
  clreg cas /app/leader 12 node2     only if revision 12 was its last change
  clreg watch /app/`,
		Args: needSubcommand,
		RunE: func(*cobra.Command, []string) error { return nil }, // never: needSubcommand refuses
	}
	cmd.AddCommand(clregGet(env), clregPut(env), clregCAS(env), clregDel(env), clregList(env), clregWatch(env), clregLease(env))
	return Manual(cmd, exitClreg, "cluster(1)")
}

func clregGet(env *Env) *cobra.Command {
	var params api.RegistryGetParams
	var bare, asJSON bool
	cmd := &cobra.Command{
		Use:   "get [-n] [--stale] KEY",
		Short: "print the value of a key",
		Long: `get prints the value of a key and a newline. The value is at least as new as the
call; with --stale it is what this node has, which also works without quorum.`,
		Example: `  clreg get /app/leader
  clreg get -n /app/blob > blob`,
		Args: Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			params.Key = args[0]
			res, err := Call[api.RegistryGetReply](cmd.Context(), env, api.MethodRegistryGet, params)
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			if !bare {
				res.KV.Value = append(res.KV.Value, '\n')
			}
			_, err = env.Stdout.Write(res.KV.Value)
			return err
		},
	}
	cmd.Flags().BoolVarP(&bare, "no-newline", "n", false, "print the value as it is")
	cmd.Flags().BoolVar(&params.Stale, "stale", false, "take what this node has, also without quorum")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the key with its revisions as JSON, the value in base64")
	return Manual(cmd, exitClreg, "clreg-ls(1)", "clreg-watch(1)")
}

// inputValue is the value argument of a writing command: the argument, or stdin when
// there is none, or a file.
func inputValue(env *Env, args []string, file string) ([]byte, error) {
	r := env.Stdin
	from := "stdin"
	switch {
	case len(args) > 0 && file != "":
		return nil, Usagef("give the value as an argument or by --file, not both")
	case len(args) > 0:
		return []byte(args[0]), nil
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		r, from = f, file
	}
	b, err := io.ReadAll(io.LimitReader(r, maxValue+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", from, err)
	}
	if len(b) > maxValue {
		return nil, fmt.Errorf("%s is longer than the limit of %d KiB; keep big things in files", from, maxValue>>10)
	}
	return b, nil
}

// compared gives a failed comparison its exit status.
func compared(err error) error {
	if errno.Is(err, errno.Exists) {
		return &failed{status: statusCompare, err: err}
	}
	return err
}

func clregPut(env *Env) *cobra.Command {
	var params api.RegistryPutParams
	var file string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "put [--lease ID] KEY [VALUE]",
		Short: "write a key",
		Long: `put writes a key and prints the revision of the change. Without VALUE the value
is read from stdin, or from --file. Arguments are seen by everyone on the
machine: hand over secrets by stdin.`,
		Example: `  clreg put /app/leader node1
  clreg put /app/blob < blob`,
		Args: Args(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := inputValue(env, args[1:], file)
			if err != nil {
				return err
			}
			params.Key, params.Value = args[0], v
			res, err := Call[api.RegistryWriteReply](cmd.Context(), env, api.MethodRegistryPut, params)
			return printRevision(env, quiet, res.Revision, err)
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "read the value from `FILE`; - is stdin")
	cmd.Flags().Uint64Var(&params.Lease, "lease", 0, "the key goes when lease `ID` ends")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not print the revision")
	return Manual(cmd, exitClreg, "clreg-cas(1)", "clreg-lease(1)")
}

func clregCAS(env *Env) *cobra.Command {
	var params api.RegistryCASParams
	var file string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "cas [--lease ID] KEY REVISION [VALUE]",
		Short: "write a key if it was not changed meanwhile",
		Long: `cas writes a key if REVISION was its last change (the field "mod" of
clreg get --json), or, when REVISION is 0, if the key does not exist. Otherwise
nothing is changed and the exit status is 3. It prints the new revision.`,
		Example: `  clreg cas /lock/job 0 "$(hostname)" && job`,
		Args:    Args(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			mod, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				return Usagef("%q is no revision", args[1])
			}
			v, err := inputValue(env, args[2:], file)
			if err != nil {
				return err
			}
			params.Key, params.Mod, params.Value = args[0], mod, v
			res, err := Call[api.RegistryWriteReply](cmd.Context(), env, api.MethodRegistryCAS, params)
			return printRevision(env, quiet, res.Revision, compared(err))
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "read the value from `FILE`; - is stdin")
	cmd.Flags().Uint64Var(&params.Lease, "lease", 0, "the key goes when lease `ID` ends")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not print the revision")
	return Manual(cmd, exitClreg, "clreg-put(1)", "clreg-get(1)")
}

func printRevision(env *Env, quiet bool, revision uint64, err error) error {
	if err == nil && !quiet {
		_, err = fmt.Fprintln(env.Stdout, revision)
	}
	return err
}

func clregDel(env *Env) *cobra.Command {
	var params api.RegistryDeleteParams
	var quiet bool
	cmd := &cobra.Command{
		Use:   "del [--prefix | --mod REVISION] KEY",
		Short: "remove a key",
		Long: `del removes a key, or with --prefix all keys that begin with KEY, and prints how
many went. With --mod it removes the key only if REVISION was its last change.`,
		Example: `  clreg del /app/leader
  clreg del --prefix /app/`,
		Args: Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			params.Key = args[0]
			res, err := Call[api.RegistryDeleteReply](cmd.Context(), env, api.MethodRegistryDelete, params)
			if err == nil && !quiet {
				_, err = fmt.Fprintln(env.Stdout, res.Deleted)
			}
			return compared(err)
		},
	}
	cmd.Flags().BoolVar(&params.Prefix, "prefix", false, "remove all keys that begin with KEY")
	cmd.Flags().Uint64Var(&params.Mod, "mod", 0, "only if `REVISION` was its last change")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not print how many went")
	exclusive(cmd, "prefix", "mod")
	return Manual(cmd, exitClreg, "clreg-put(1)")
}

func clregList(env *Env) *cobra.Command {
	var params api.RegistryListParams
	var long, asJSON bool
	cmd := &cobra.Command{
		Use:   "ls [-l] [PREFIX]",
		Short: "list keys",
		Long: `ls lists the keys that begin with PREFIX, in the order of their bytes. -l adds
the revision of the last change, the lease, and the value as one quoted line.`,
		Example: `  clreg ls /app/
  clreg ls -l`,
		Args: Args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				params.Prefix = args[0]
			}
			params.KeysOnly = !long && !asJSON
			kvs, err := listAll(cmd, env, params)
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, kvs)
			}
			tw := newTable(env.Stdout)
			if long {
				fmt.Fprintln(tw, "KEY\tMOD\tLEASE\tVALUE")
			}
			for _, kv := range kvs {
				if !long {
					fmt.Fprintln(tw, kv.Key)
					continue
				}
				fmt.Fprintf(tw, "%s\t%d\t%s\t%s\n", kv.Key, kv.Mod, leaseText(kv.Lease), show(kv.Value))
			}
			return tw.Flush()
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "also revision, lease and value")
	cmd.Flags().BoolVar(&params.Stale, "stale", false, "take what this node has, also without quorum")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the keys with values (base64) and revisions as JSON")
	return Manual(cmd, exitClreg, "clreg-get(1)")
}

// listAll reads all pages of a list.
func listAll(cmd *cobra.Command, env *Env, params api.RegistryListParams) ([]api.KV, error) {
	kvs := []api.KV{}
	for {
		res, err := Call[api.RegistryListReply](cmd.Context(), env, api.MethodRegistryList, params)
		if err != nil {
			return nil, err
		}
		kvs = append(kvs, res.KVs...)
		if !res.More || len(res.KVs) == 0 {
			return kvs, nil
		}
		params.After = res.KVs[len(res.KVs)-1].Key
	}
}

func leaseText(lease uint64) string {
	if lease == 0 {
		return "-"
	}
	return strconv.FormatUint(lease, 10)
}

// show prints a value in one line: as it is when that is plain, else quoted.
func show(v []byte) string {
	plain := utf8.Valid(v) && strings.IndexFunc(string(v), func(r rune) bool { return !unicode.IsPrint(r) }) < 0
	if plain && len(v) > 0 && v[0] != '"' {
		return string(v)
	}
	return strconv.Quote(string(v))
}

func clregWatch(env *Env) *cobra.Command {
	var params api.RegistryWatchParams
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "watch [--after REVISION] [PREFIX]",
		Short: "follow the changes of keys",
		Long: `watch prints a line for each change of a key that begins with PREFIX, until it
is interrupted: the revision, put or del, the key, and the new value (quoted when
it is not plain). The first line tells the revision the watch starts after. Only
the latest changes are kept: a watch that starts too far back, or reads too
slowly, ends with status 1 and has to list again.`,
		Example: `  clreg watch /app/
  clreg watch --json --after 120`,
		Args: Args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				params.Prefix = args[0]
			}
			return Watch(cmd.Context(), env, api.MethodRegistryWatch, params, func(e api.RegistryEvent) error {
				var err error
				switch {
				case asJSON:
					err = printLine(env.Stdout, e)
				case e.Put != nil:
					_, err = fmt.Fprintf(env.Stdout, "%d put %s %s\n", e.Revision, e.Put.Key, show(e.Put.Value))
				case e.Delete != "":
					_, err = fmt.Fprintf(env.Stdout, "%d del %s\n", e.Revision, e.Delete)
				default:
					_, err = fmt.Fprintf(env.Stdout, "%d start\n", e.Revision)
				}
				return err
			})
		},
	}
	cmd.Flags().Uint64Var(&params.After, "after", 0, "start behind this `REVISION` (default: from now on)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each change as one line of JSON, the value in base64")
	return Manual(cmd, exitClreg, "clreg-ls(1)")
}

// printLine prints v as one line of JSON.
func printLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

func clregLease(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lease grant TTL | renew ID | revoke ID",
		Short: "make, keep and end leases",
		Long: `A lease ends when it is not renewed for its time (1s to 24h); the keys written
with it (put --lease) go with it. grant prints the number of the new lease.`,
		Example: `  lease=$(clreg lease grant 10s)
  clreg put --lease "$lease" /app/alive "$(hostname)"
  clreg lease renew "$lease"`,
		Args: Args(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "grant" {
				ttl, err := time.ParseDuration(args[1])
				if err != nil {
					return Usagef("%q is no time: write 10s, 5m, 2h", args[1])
				}
				res, err := Call[api.LeaseReply](cmd.Context(), env, api.MethodRegistryGrant, api.LeaseGrantParams{TTL: ttl})
				return printRevision(env, false, res.ID, err)
			}
			n, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				return Usagef("%q is no lease number", args[1])
			}
			var method string
			switch args[0] {
			case "renew":
				method = api.MethodRegistryRenew
			case "revoke":
				method = api.MethodRegistryRevoke
			default:
				return Usagef("%q: a lease is granted, renewed or revoked", args[0])
			}
			_, err = Call[api.LeaseReply](cmd.Context(), env, method, api.LeaseParams{ID: n})
			return err
		},
		ValidArgs: []string{"grant", "renew", "revoke"},
	}
	return Manual(cmd, exitClreg, "clreg-put(1)")
}
