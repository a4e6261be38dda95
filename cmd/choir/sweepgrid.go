package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"choir.example/simulate"
)

// sweepFlags say what a sweep runs.
type sweepFlags struct {
	Experiments []string `arg:"" name:"experiment" help:"Names that choir simulate list shows, also with * for any letters, or YAML files." placeholder:"NAME|FILE"`
	Set         []string `help:"Change a value in all cells, as choir simulate run does." placeholder:"PATH=VALUE" sep:"none"`
	Grid        []string `help:"Try each of these values, with each of every other --grid." placeholder:"PATH=V1,V2,…" sep:"none"`
	List        []string `help:"Try these values together; each --list is one more combination, with all of the grid." placeholder:"PATH=V,PATH=V" sep:"none"`
	Seeds       string   `help:"Seeds of each combination, such as 0-2 or 0,7,9. Default: those of the experiment." placeholder:"LIST"`
}

// cell is one run of a sweep.
type cell struct {
	x    simulate.Experiment // with one seed
	dir  string              // name of its directory below the sweep's
	from *changedExperiment  // who says it; the same of all seeds
}

// maxCells bounds a sweep: more is a slip of the fingers.
const maxCells = 100_000

// cells are all runs of the sweep, in an order that does not depend on who asks.
func (f *sweepFlags) cells(fidelity simulate.Fidelity) (all []cell, err error) {
	experiments, err := matching(f.Experiments)
	if err != nil {
		return nil, err
	}
	combinations, err := f.combinations()
	if err != nil {
		return nil, err
	}
	seeds, err := parseSeeds(f.Seeds)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, name := range experiments {
		for _, combination := range combinations {
			from := experimentFlags{name, f.Set}.changed()
			from.changes = append(from.changes, combination.changes...)
			x, err := from.read()
			if err != nil {
				return nil, err
			}
			for _, seed := range seedsOf(&x, seeds) {
				c, err := newCell(x, seed, fidelity, combination.text)
				if err != nil {
					return nil, err
				}
				c.from = from
				if names[c.dir] {
					return nil, &usageError{fmt.Sprintf("the sweep has %s %s with seed %d twice", x.Name, combination.text, seed), "leave the value or the seed out that is there twice"}
				}
				names[c.dir] = true
				if all = append(all, c); len(all) > maxCells {
					return nil, &usageError{fmt.Sprintf("the sweep has more than %d cells", maxCells), "leave values out"}
				}
			}
		}
	}
	return all, nil
}

// seedsOf are those that were asked for, or the experiment's own.
func seedsOf(x *simulate.Experiment, asked []uint64) []uint64 {
	switch {
	case asked != nil:
		return asked
	case len(x.Seeds) > 0:
		return x.Seeds
	}
	return []uint64{0}
}

// newCell names the directory of a run by what people look for, and by a digest of all that it depends on.
func newCell(x simulate.Experiment, seed uint64, fidelity simulate.Fidelity, values string) (cell, error) {
	x.Seeds = []uint64{seed}
	text, err := runText(&x, fidelity)
	if err != nil {
		return cell{}, err
	}
	sum := sha256.Sum256(text)
	name := plainName(strings.TrimSpace(x.Name + " " + values))
	if len(name) > 80 {
		name = name[:80]
	}
	return cell{x: x, dir: fmt.Sprintf("%s_seed-%d_%s", name, seed, hex.EncodeToString(sum[:4]))}, nil
}

// plainName has no letter that a file system or a shell minds.
func plainName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return r
		case r == '=':
			return '-'
		}
		return '_'
	}, s)
}

// matching are the names that were given, with those of built-in experiments that a * stands for.
func matching(given []string) (names []string, err error) {
	for _, e := range given {
		if !strings.ContainsAny(e, "*?[") {
			names = append(names, e)
			continue
		}
		before := len(names)
		for _, name := range builtinNames() {
			if ok, err := path.Match(e, name); err != nil {
				return nil, &usageError{fmt.Sprintf("%q: %v", e, err), ""}
			} else if ok {
				names = append(names, name)
			}
		}
		if len(names) == before {
			return nil, &usageError{fmt.Sprintf("no experiment is called %q", e), "choir simulate list shows their names"}
		}
	}
	return names, nil
}

// combination is values that are tried together.
type combination struct {
	changes []change
	text    string
}

// combinations are those of the lists, each with all of the grid. Without any there is one, which changes nothing.
func (f *sweepFlags) combinations() ([]combination, error) {
	all := []combination{{}}
	if len(f.List) > 0 {
		all = nil
	}
	for _, l := range f.List {
		var c combination
		for _, a := range splitValues(l) {
			if !strings.Contains(a, "=") {
				return nil, &usageError{fmt.Sprintf("--list %.80q, want PATH=VALUE,PATH=VALUE", l), "a value with commas goes into [ ] or quotes"}
			}
			c = c.with(change{"--list", a})
		}
		all = append(all, c)
	}
	for _, g := range f.Grid {
		key, values, ok := strings.Cut(g, "=")
		if !ok || key == "" || values == "" {
			return nil, &usageError{fmt.Sprintf("--grid %.80q, want PATH=VALUE,VALUE", g), "such as --grid local.learning_rate=0.1,0.05"}
		}
		var more []combination
		for _, c := range all {
			for _, v := range splitValues(values) {
				more = append(more, c.with(change{"--grid", key + "=" + v}))
			}
		}
		if all = more; len(all) > maxCells {
			return nil, &usageError{fmt.Sprintf("the grid has more than %d combinations", maxCells), "leave values out"}
		}
	}
	return all, nil
}

// with is the combination and one more change.
func (c combination) with(more change) combination {
	key, value, _ := strings.Cut(more.text, "=")
	text := strings.TrimSpace(c.text + " " + key[strings.LastIndexByte(key, '.')+1:] + "=" + value)
	return combination{append(slices.Clone(c.changes), more), text}
}

// splitValues cuts at commas that are not within brackets, braces or quotes.
func splitValues(text string) (out []string) {
	depth, from := 0, 0
	var quote rune
	for i, r := range text {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case r == '[' || r == '{':
			depth++
		case r == ']' || r == '}':
			depth--
		case r == ',' && depth == 0:
			out, from = append(out, text[from:i]), i+1
		}
	}
	return append(out, text[from:])
}

// maxSeeds bounds how many seeds a sweep has.
const maxSeeds = 10_000

// parseSeeds reads numbers and ranges with commas between them; nil if there is nothing.
func parseSeeds(text string) (seeds []uint64, err error) {
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		from, err1 := strconv.ParseUint(low, 10, 64)
		to := from
		var err2 error
		if isRange {
			to, err2 = strconv.ParseUint(high, 10, 64)
		}
		if err1 != nil || err2 != nil || to < from || to-from >= maxSeeds || uint64(len(seeds))+to-from >= maxSeeds {
			return nil, &usageError{fmt.Sprintf("--seeds %.60q, want numbers and ranges, at most %d seeds in all", text, maxSeeds), "such as --seeds 0-2 or --seeds 0,7,9"}
		}
		for s := from; ; s++ {
			seeds = append(seeds, s)
			if s == to {
				break
			}
		}
	}
	return seeds, nil
}
