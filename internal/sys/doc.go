// Package sys is the only place of ssi that makes raw system calls and uses
// package unsafe: for what golang.org/x/sys/unix does for all threads at once, or
// not without garbage.
//
// A deputy (Deputize) runs no Go: what a process without a stack can do is in
// assembly, deputy_*.s, and has no branches but the end of the list and errors.
//
// It starts no goroutine that outlives a call and keeps no state. Each function
// names the manual page it follows. It must never decide policy and never
// import anything of ssi.
package sys
