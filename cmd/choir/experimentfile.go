package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"choir.example/internal/nearest"
	"choir.example/simulate"
)

// experimentFlags say which experiment: by name or by file, and with which changes.
type experimentFlags struct {
	Experiment string   `arg:"" help:"A name that choir simulate list shows, or a YAML file." placeholder:"NAME|FILE"`
	Set        []string `help:"Change a value: its dotted key in the file, =, YAML. May be given several times." placeholder:"PATH=VALUE" sep:"none"`
}

// experiment reads the experiment, with its changes.
func (f experimentFlags) experiment() (x simulate.Experiment, err error) {
	if b, ok := simulate.BuiltinNamed(f.Experiment); ok {
		x = b.Experiment
		if slices.ContainsFunc(f.Set, func(s string) bool { return strings.HasPrefix(s, "data.path=") }) {
			x.Data = x.Data.At("") // a file in place of what choir would make up
		}
	} else if x, err = readExperiment(f.Experiment); err != nil {
		return x, err
	}
	for _, s := range f.Set {
		if err := setYAML("--set", s, &x); err != nil {
			return x, err
		}
	}
	return x, here(&x)
}

// readExperiment reads a file. A path in it is relative to it.
func readExperiment(path string) (x simulate.Experiment, err error) {
	if err := readYAML(path, &x); err != nil {
		if errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(path, "./") {
			return x, noExperiment(path)
		}
		return x, missing("experiment", err)
	}
	if x.Name == "" {
		x.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	for _, p := range paths(&x) {
		*p = beside(path, *p)
	}
	return x, nil
}

// paths are the files and directories that an experiment names.
func paths(x *simulate.Experiment) (all []*string) {
	for _, p := range []*string{&x.Data.Path, &x.Data.Schema} {
		if *p != "" {
			all = append(all, p)
		}
	}
	return all
}

// here makes paths absolute: the file of a run is to be read from anywhere.
func here(x *simulate.Experiment) (err error) {
	for _, p := range paths(x) {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}

// newLoader reads data sets, with schemas as other commands read them.
func newLoader() *simulate.Loader { return &simulate.Loader{Schema: readSchema} }

func builtinNames() (names []string) {
	for _, b := range simulate.Builtins() {
		names = append(names, b.Name)
	}
	return names
}

var (
	aboutSection = regexp.MustCompile(`^(?:experiment [^:]*: )?([a-z_]+): (.*)`)
	wantOneOf    = regexp.MustCompile(`"([^"]*)"[,:] want one of ([^;()]+)$`)
	needsPath    = regexp.MustCompile(`: data: [a-z-]+ needs path: `)
	word         = regexp.MustCompile(`[a-z_]+`)
)

// inExperiment adds to what is said about an experiment where its file says so, and the nearest name to a wrong one.
func (f experimentFlags) inExperiment(err error) error {
	if err == nil {
		return nil
	}
	var known *hinted
	if m := wantOneOf.FindStringSubmatch(err.Error()); m != nil && !errors.As(err, &known) {
		if best := nearest.Word(m[1], strings.Split(strings.TrimSpace(m[2]), ", ")); best != "" { // all names were said already
			err = &hinted{err, didYouMean(best)}
		}
	}
	if _, missing := os.Stat(f.Experiment); missing != nil {
		if needsPath.MatchString(err.Error()) {
			err = &hinted{err, "--set data.path=DIR"}
		}
		return err
	}
	if at := inSection(f.Experiment, err.Error(), simulate.Experiment{}); at != "" {
		return fmt.Errorf("%s: %w", at, err)
	}
	return err
}

// inSection is where a file says what a text is about that begins with a section of it, empty if it begins with none.
func inSection(path, text string, file any) string {
	m := aboutSection.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	section, _, _ := fieldOf(reflect.ValueOf(file), m[1])
	if !section.IsValid() {
		return ""
	}
	keys := []any{m[1]}
	if section.Kind() == reflect.Struct {
		_, _, fields := fieldOf(section, "")
		for _, w := range word.FindAllString(m[2], -1) {
			if slices.Contains(fields, w) {
				keys = append(keys, w)
				break
			}
		}
	}
	return place(path, keys...)
}
