package kmod

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrUnknown is the cause when no module has a name or alias.
var ErrUnknown = errors.New("no kernel module has this name or alias")

// Step is one module to load.
type Step struct {
	Module *Module
	Needed bool // without it what was asked for does not work; else a soft dependency
}

// Resolve finds the modules for a name or an alias (of a device: its modalias),
// in the order in which to load them, with their dependencies and soft
// dependencies. What is built in needs no step. Rules may be nil. The error is
// ErrUnknown if nothing is known of the name.
func (x *Index) Resolve(name string, rules *Rules) ([]Step, error) {
	targets, known := x.targets(name, rules)
	if len(targets) == 0 && !known {
		return nil, fmt.Errorf("%s, kernel %s: %w", name, x.Version(), ErrUnknown)
	}
	r := resolver{index: x, rules: rules, needed: map[*Module]bool{}, seen: map[*Module]bool{}}
	for _, m := range targets {
		r.need(m)
	}
	for _, m := range targets {
		r.visit(m)
	}
	return r.steps, nil
}

// targets are what a name stands for, and whether it is known at all.
func (x *Index) targets(name string, rules *Rules) (found []*Module, known bool) {
	for _, real := range rules.alias(name) {
		more, builtin := x.lookup(real)
		found, known = append(found, more...), known || builtin
	}
	if len(found) > 0 {
		return found, true
	}
	found, builtin := x.lookup(name)
	if x.modules[Name(name)] == nil {
		// Only who asks for a module by its name gets a blacklisted one: modprobe.d(5).
		n := len(found)
		found = slices.DeleteFunc(found, func(m *Module) bool { return rules.blacklisted(m.Name) })
		builtin = builtin || n > 0
	}
	return found, known || builtin
}

type resolver struct {
	index  *Index
	rules  *Rules
	needed map[*Module]bool
	seen   map[*Module]bool
	steps  []Step
}

// need marks a module and what it cannot do without.
func (r *resolver) need(m *Module) {
	if r.needed[m] {
		return
	}
	r.needed[m] = true
	for _, d := range m.Deps {
		if dep := r.index.modules[d]; dep != nil {
			r.need(dep)
		}
	}
}

// visit appends a module behind everything it depends on.
func (r *resolver) visit(m *Module) {
	if r.seen[m] {
		return
	}
	r.seen[m] = true
	s := r.rules.softOf(m.Name, r.index.soft[m.Name])
	r.soft(s.Pre)
	for _, d := range slices.Backward(m.Deps) {
		if dep := r.index.modules[d]; dep != nil {
			r.visit(dep)
		}
	}
	r.steps = append(r.steps, Step{Module: m, Needed: r.needed[m]})
	r.soft(s.Post)
}

func (r *resolver) soft(names []string) {
	for _, name := range names {
		// An alias is every module that has it: crc32c is crc32c_generic, too.
		found, _ := r.index.targets(name, r.rules)
		for _, m := range found {
			r.visit(m)
		}
	}
}

// deps are all hard dependencies of a module, the last to load first.
func (x *Index) deps(m *Module) []string {
	var order []string
	seen := map[string]bool{m.Name: true}
	var visit func(names []string)
	visit = func(names []string) {
		for _, d := range slices.Backward(names) {
			dep := x.modules[d]
			if dep == nil || seen[d] {
				continue
			}
			seen[d] = true
			visit(dep.Deps)
			order = append(order, d)
		}
	}
	visit(m.Deps)
	slices.Reverse(order)
	return order
}

// Select finds modules by a pattern: of names ("virtio_*"), or, if it has a
// slash, of paths without compression ("kernel/drivers/net/ethernet/intel/*").
func (x *Index) Select(pattern string) []*Module {
	var found []*Module
	for _, m := range x.sorted {
		match := false
		if strings.Contains(pattern, "/") {
			plain, _, _ := splitSuffix(m.Path)
			match = Match(pattern, plain)
		} else {
			match = Match(underscores(pattern), m.Name)
		}
		if match {
			found = append(found, m)
		}
	}
	return found
}
